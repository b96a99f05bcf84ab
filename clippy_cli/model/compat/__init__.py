"""What clippy knows of the insides of timm, open_clip, transformers and huggingface_hub, one file a library.

Private names, modules that are no documented door, and attributes that another release may rename are used here and
nowhere else.
"""
