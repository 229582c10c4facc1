"""ComfyUI's protocol, for graphs of a fixed vocabulary of nodes.

A graph is read as data: what its nodes say becomes the parameters of one request a sampler, which
goes the way of every other request. No node is executed.

    vocabulary  the nodes, their inputs and outputs
    graph       a prompt checked against the vocabulary
    reading     what a checked graph asks for
    pictures    the pictures and masks that a graph loads
    files       what was uploaded and made, by name, in memory
    prompts     accepted prompts: the queue and the history
    execution   the life of one prompt, as told to its client
    channels    WebSockets of clients
    routes      the HTTP side
"""
