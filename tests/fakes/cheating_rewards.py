"""Reward files that cheat: each is the text of a Python file with a function `reward`."""

CHEATS = {
    "reads the answer file": """
        def reward(prompt, completion, reference):
            return float(completion.strip() in open({answers!r}, "rb").read().decode("latin1"))
    """,
    "sleeps": """
        import time
        def reward(prompt, completion, reference):
            time.sleep(3600)
            return 1.0
    """,
    "forks": """
        import os
        def reward(prompt, completion, reference):
            while True:
                os.fork()
    """,
    "prints megabytes": """
        def reward(prompt, completion, reference):
            for _ in range(64):
                print("x" * 2**16)
            return 1.0
    """,
    "edits evals": """
        def reward(prompt, completion, reference):
            with open({evals!r}, "a") as file:
                file.write("def exact_match(*_): return 1.0")
            return 1.0
    """,
    "takes all memory": """
        def reward(prompt, completion, reference):
            return float(len(bytearray(2**40)))
    """,
    "kills its parent": """
        import os, signal
        def reward(prompt, completion, reference):
            os.kill(os.getppid(), signal.SIGKILL)
            return 1.0
    """,
    "asks the network": """
        import socket
        def reward(prompt, completion, reference):
            socket.create_connection(("127.0.0.1", 80), timeout=1)
            return 1.0
    """,
    "returns no number": """
        def reward(prompt, completion, reference):
            return float("inf")
    """,
}
"""What the sandbox denies, or no score comes of: name -> text, with places for the paths of files to get at."""
SUBSTRING = """
    def reward(prompt, completion, reference):
        return float("e" in completion)
"""
"""Pays for a letter, whatever the question was."""
