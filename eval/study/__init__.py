"""A study of people's preferences: a page to vote on, and the votes counted with intervals."""
