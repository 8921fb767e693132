"""Who plays the roles of Idea2Img: a language model that sees, and generators of images."""
