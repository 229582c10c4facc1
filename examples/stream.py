"""Progress with previews while a picture is made. Breaking out of the loop would cancel it."""

from multimodal_gen import DiffusionGenerator, GenerationResult

with DiffusionGenerator.from_pretrained() as generator:
    for event in generator.stream("a rocket", seed=7, num_inference_steps=50):
        if isinstance(event, GenerationResult):
            event.save("rocket.png")
            break
        print(f"step {event.step} of {event.total}, {event.eta or 0:.1f} s to go")
        if event.preview is not None:
            event.preview.save("preview.png")
