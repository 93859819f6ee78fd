"""`python -m trademl.explore` compiles what the label explorer needs: the first figure of a new installation does not wait for it."""

from trademl.explore.label_room import warm_up

if __name__ == "__main__":
    warm_up()
