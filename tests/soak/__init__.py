"""Hours of random prompts against a live ComfyUI: nothing may crash, differ or stay behind."""
