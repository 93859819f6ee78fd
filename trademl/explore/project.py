"""Where an explorer is: the project that its notebook lies in."""

from trademl.runs import enter_project
from trademl.settings import Settings, load_settings


def project_settings() -> Settings:
    """The settings of the project that the notebook lies in; its root becomes the working folder."""
    enter_project("")
    return load_settings()
