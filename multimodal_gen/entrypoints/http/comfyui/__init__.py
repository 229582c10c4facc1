"""ComfyUI's protocol, for graphs of a fixed set of nodes.

A graph is read as data: what its nodes say becomes the parameters of one request a sampler, which
goes the way of every other request. No node is executed.

    graph/node_definitions   the nodes, their inputs and outputs
    graph/graph              a prompt checked against the definitions
    graph/graph_translation  the parameters that a checked graph means
    graph/pictures           the pictures and masks that a graph loads
    submission               from a request's body to running tasks
    files                    what was uploaded and made, by name, in memory
    prompts                  accepted prompts: the queue and the history
    execution                the life of one prompt, as told to its client
    channels                 WebSockets of clients
    routes                   the HTTP side
"""
