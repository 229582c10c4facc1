#!/bin/sh
# Renders the chart with the example's values, for those who don't use Helm and for the tests.
set -eu
cd "$(dirname "$0")"
digest=$(find multimodal-gen example.values.yaml -type f | LC_ALL=C sort | xargs cat | sha256sum | cut -d" " -f1)
{
    echo "# Rendered by deploy/helm/render.sh; of the chart and its values: $digest"
    helm template multimodal-gen multimodal-gen --values example.values.yaml
} >example.yaml
