"""The marks of Mage before 0.8.61."""


@on_success
def was_fine(**kwargs):
    print(f"{kwargs['stream']}: fine")


@on_failure
def was_not(**kwargs):
    print(f"{kwargs['stream']}: not fine")


@on_cancelled
def was_stopped(**kwargs):
    print(f"{kwargs['stream']}: stopped")
