"""ComfyUI's protocol, for graphs of a fixed set of nodes.

A graph is read as data: its nodes determine the parameters of one request per sampler, which is
handled like any other request. No node is executed: each has a meaning, which describes its
result.

    graph/definition         what a node is: its inputs, outputs and meaning
    graph/nodes              the nodes
    graph/values             what nodes pass to each other
    graph/graph              a prompt checked against the definitions
    graph/graph_translation  from a checked graph to the parameters of requests
    graph/pictures           the images and masks that a graph loads
    part_planning            the samplers of a graph that have to run
    result_cache             results for graphs that are sent again
    submission               from a request's body to running tasks
    files                    uploads and results by name, in memory
    prompts                  accepted prompts: the queue and the history
    execution                the life of one prompt, reported to its client
    channels                 WebSockets of clients
    routes                   the HTTP side
"""
