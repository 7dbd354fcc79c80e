from taskflow_cli.failures import BadInput, DeadlinePassed, Failure, Refused, Unreachable, render


def test_a_problem_is_one_block_with_each_field_and_the_request() -> None:
    refused = Refused(
        {
            "title": "Unprocessable Content",
            "detail": "The payload does not fit EMAIL.",
            "code": "invalid",
            "request_id": "r-1",
            "errors": [{"field": "payload.to", "message": "must hold an address"}, {"message": "odd"}, "junk"],
        },
        status=422,
        hint="see the docs",
    )
    assert render(refused).splitlines() == [
        "taskflow: Unprocessable Content (422, invalid)",
        "  The payload does not fit EMAIL.",
        "  - payload.to: must hold an address",
        "  - request: odd",
        "  request id r-1",
        "  -> see the docs",
    ]


def test_a_problem_of_another_server_is_shown_as_far_as_it_goes() -> None:
    assert render(Refused({"errors": 7, "detail": None}, status=500)) == "taskflow: the request failed (500)"


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    text = render(Refused({"title": "a\x1b[2Jb\x9b1m\r\n", "detail": "\u202egnp.exe"}, status=400))
    assert all(char.isprintable() for line in text.split("\n") for char in line)


def test_exit_codes_are_as_documented() -> None:
    kinds = (Failure, Refused, BadInput, Unreachable, DeadlinePassed)
    assert [kind.exit_code for kind in kinds] == [1, 1, 2, 2, 3]
