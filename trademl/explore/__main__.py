"""`python -m trademl.explore` compiles every kernel once: neither the first retrain of a new installation nor its first figure waits."""

from trademl.explore.label_room import warm_up
from trademl.pipeline.market.rehearsal import rehearse

if __name__ == "__main__":
    warm_up()
    rehearse()
