"""Who plays roles in the miniature world: a language model, an editor, and scripted players."""
