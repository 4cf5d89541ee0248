"""All that speaks to ComfyUI: the only part of the extension that imports `comfy`.

Nothing is ever installed on the user's model. A run gets a sampler object of ours in place of the
user's own; inside it the model is loaded, the conditionings are processed and the options are a
private copy, so that what is put there ends with the run.
"""
