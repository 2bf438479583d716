"""The face that OpenAI's clients know: models, completions and chat completions."""

from fettle.service.faces.openai.face import routes

__all__ = ["routes"]
