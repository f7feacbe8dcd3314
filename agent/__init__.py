"""The agent: goals are interpreted, trials proposed, studies driven and reported."""
