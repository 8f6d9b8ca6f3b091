"""The model store: models that arrive whole, or not at all.

    index       what a models.json says (models.schema.json), and each Entry in it
    indexes     which indexes there are: the user's own, then ours; their last good copies
    settings    the user's choices: indexes, certificates, accepted licences
    library     all known models with their state; find_model: a name or path -> the bundle that is used
    cache       where models are installed
    files       where this user's files lie; writing one whole
    download    a file over the network: resumed, verified
    archive     a bundle as one .usema file
    install     an entry, or a .usema file, into the cache
    publish     a bundle into a folder that is an index; page: that index for people

Nothing is fetched unless the user asks. Every file needs the standard library alone to be imported, because the panel
opens before anything is installed.
"""
