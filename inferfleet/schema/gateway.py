"""The key `gateway:` of a service of the kind gateway: which models it offers, and to whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from inferfleet.schema.fields import Duration, Matching, Model, Name, Size, Text

ServiceRef = Annotated[
    str,
    Matching(
        "([a-z0-9][a-z0-9_-]{0,62}/)?[a-z0-9][a-z0-9_-]{0,62}",
        "a service",
        "write SERVICE, or MACHINE/SERVICE for one on another machine",
    ),
]
PromptFile = Annotated[
    str,
    Matching(
        r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*",
        "a path below the folder inventory",
        "write it as prompts/team.txt",
    ),
]
ModelName = Annotated[
    str,
    Matching(r"[^\x00-\x1f\x7f]{1,200}", "a model name", "use up to 200 printable characters"),
]
Count = Annotated[int, Field(ge=1, le=10**15)]
# Sums of tokens are kept as floating-point numbers, which are exact up to here.


def _text_alone(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


def _service_alone(value: object) -> object:
    if isinstance(value, str):
        return {"service": value}
    if isinstance(value, dict | RouteTarget):
        return value
    raise ValueError("is not a service; write SERVICE, or {service: SERVICE, model: NAME}")


def _some(routes: dict[str, Route]) -> dict[str, Route]:
    if not routes:
        raise ValueError(
            "is empty; name a model, or remove the key to offer the machine's services"
        )
    return routes


class SystemPrompt(Model):
    """What stands before every conversation; exactly one of the keys. A text alone is `text`."""

    text: Text | None = Field(default=None, description="The prompt itself.")
    file: PromptFile | None = Field(
        default=None,
        description="File with the prompt, below the folder inventory (the consumer's, then ours).",
    )
    alias: Text | None = Field(
        default=None,
        description="Alias directory of the service's model, whose system_prompt.txt it is.",
    )

    @model_validator(mode="after")
    def _one(self) -> SystemPrompt:
        if sum(source is not None for source in (self.text, self.file, self.alias)) != 1:
            raise ValueError("needs exactly one of text, file, alias")
        return self


class RouteTarget(Model):
    """A service of a route, and what it is asked for. A text alone is `service`."""

    service: ServiceRef = Field(description="SERVICE, or MACHINE/SERVICE.")
    model: ModelName | None = Field(
        default=None,
        description="Name that it is asked for, such as that of a LoRA adapter; default: the name "
        "that it serves its model under.",
    )


class Route(Model):
    """Which services answer for a model."""

    to: Annotated[
        list[
            Annotated[
                RouteTarget,
                BeforeValidator(_service_alone, json_schema_input_type=ServiceRef | RouteTarget),
            ]
        ],
        Field(min_length=1),
    ] = Field(
        description="Services, as SERVICE or MACHINE/SERVICE; each is asked for the name that it "
        "serves its model under, or for the one that stands with it as {service: SERVICE, model: "
        "NAME}."
    )
    aliases: list[ModelName] = Field(default=[], description="Other names for the same.")
    system_prompt: (
        Annotated[
            SystemPrompt, BeforeValidator(_text_alone, json_schema_input_type=Text | SystemPrompt)
        ]
        | None
    ) = Field(default=None, description="System prompt of chats and responses; a text alone is it.")
    strategy: Literal["least-busy", "round-robin"] = Field(
        default="least-busy", description="Which of the services that are well gets a request."
    )
    timeout: Duration = Field(
        default=600, description="Longest silence of a service, before and between two tokens."
    )


class Budget(Model):
    """Tokens that a key may use in a period of UTC; kept over restarts."""

    tokens: Count = Field(description="How many, input and output together.")
    per: Literal["day", "week", "month", "total"] = Field(
        default="month", description="After which they begin anew; weeks begin on Monday."
    )


class GatewayKey(Model):
    """An API key and what it may do."""

    secret: Text = Field(description="Secret of the machine that holds the key.")
    models: Annotated[list[ModelName], Field(min_length=1)] | None = Field(
        default=None, description="Models, by name or alias, that it may use; default: all."
    )
    rpm: Count | None = Field(default=None, description="Requests a minute.")
    tpm: Count | None = Field(default=None, description="Tokens a minute, input and output.")
    budget: Budget | None = Field(default=None, description="Tokens in a longer time.")


class Gateway(Model):
    """What a gateway offers; without routes every OpenAI service of its machine."""

    routes: Annotated[dict[ModelName, Route], AfterValidator(_some)] | None = Field(
        default=None,
        description="Models by the name that clients ask for. Default: the machine's OpenAI "
        "services by the names that they serve, the alias directories of their models, each with "
        "its system_prompt.txt, and their LoRA adapters.",
    )
    keys: dict[Name, GatewayKey] = Field(
        default={}, description="API keys by a name for figures and logs; none: no key is asked."
    )
    service_keys: dict[ServiceRef, Text] = Field(
        default={},
        description="Secrets of this machine that hold the keys which services themselves ask "
        "for. Default: the secret of the same name as on the service's machine.",
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        default=2, description="Processes that pass requests on, at most one for each CPU."
    )
    largest_request: Size = Field(
        default=64 << 20, description="Size of the largest request, pictures included."
    )
