"""Manifests for the double of an API, as their authors write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: How each way of paging is written.
PAGES: Mapping[str, dict[str, Any]] = {
    "page": {
        "type": "DefaultPaginator",
        "pagination_strategy": {"type": "PageIncrement", "start_from_page": 1, "page_size": 50},
        "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "page"},
        "page_size_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "limit"},
    },
    "offset": {
        "type": "DefaultPaginator",
        "pagination_strategy": {"type": "OffsetIncrement", "page_size": 50},
        "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "offset"},
        "page_size_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "limit"},
    },
    "cursor": {
        "type": "DefaultPaginator",
        "pagination_strategy": {
            "type": "CursorPagination",
            "cursor_value": "{{ response.get('next') }}",
            "stop_condition": "{{ not response.get('next') }}",
        },
        "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "cursor"},
    },
    "link": {
        "type": "DefaultPaginator",
        "pagination_strategy": {
            "type": "CursorPagination",
            "cursor_value": "{{ headers['link']['next']['url'] }}",
            "stop_condition": "{{ 'next' not in headers['link'] }}",
        },
        "page_token_option": {"type": "RequestPath"},
    },
}

#: The columns of each table of the double.
COLUMNS: Mapping[str, Any] = {
    "id": {"type": "integer"},
    "user_id": {"type": ["null", "integer"]},
    "updated_at": {"type": "string", "format": "date-time"},
    "note": {"type": ["null", "string"]},
}

_RETRIES = {
    "type": "DefaultErrorHandler",
    "max_retries": 8,
    "backoff_strategies": [
        {"type": "WaitTimeFromHeader", "header": "Retry-After"},
        {"type": "ConstantBackoffStrategy", "backoff_time_in_seconds": 0.05},
    ],
}

_OAUTH = {
    "type": "OAuthAuthenticator",
    "token_refresh_endpoint": "{{ config['url'] }}/oauth/token",
    "client_id": "{{ config['client_id'] }}",
    "client_secret": "{{ config['client_secret'] }}",
    "refresh_token": "{{ config['refresh_token'] }}",
    "refresh_token_updater": {
        "refresh_token_config_path": ["refresh_token"],
        "access_token_config_path": ["access_token"],
        "token_expiry_date_config_path": ["token_expiry_date"],
    },
}


def stream(
    name: str,
    *,
    paging: str = "cursor",
    step: str = "",
    until: str = "2026-12-31T00:00:00Z",
    is_incremental: bool = True,
    parent: Mapping[str, Any] | None = None,
    is_oauth: bool = False,
) -> dict[str, Any]:
    """Return one stream.

    Args:
        name: of the stream, and of its table.
        paging: a key of `PAGES`.
        step: length of the slices in which it is read, as `P20D`; empty: it is one slice.
        until: end of the last slice.
        is_incremental: its cursor is `updated_at`.
        parent: a stream of this manifest, whose records' children these are.
        is_oauth: it is read with a token; the refresh token is in the config, and each answer brings the next one.
    """
    retriever: dict[str, Any] = {
        "type": "SimpleRetriever",
        "requester": {
            "type": "HttpRequester",
            "url_base": "{{ config['url'] }}",
            "path": f"{parent['name']}/{{{{ stream_partition.parent }}}}/{name}" if parent else name,
            "error_handler": _RETRIES,
            **({"authenticator": _OAUTH} if is_oauth else {}),
        },
        "record_selector": {"type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": ["data"]}},
        "paginator": PAGES[paging],
    }
    if parent:
        one = {"type": "ParentStreamConfig", "parent_key": "id", "partition_field": "parent", "stream": dict(parent)}
        retriever["partition_router"] = {"type": "SubstreamPartitionRouter", "parent_stream_configs": [one]}
    found: dict[str, Any] = {
        "type": "DeclarativeStream",
        "name": name,
        "primary_key": ["id"],
        "retriever": retriever,
        "schema_loader": {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": dict(COLUMNS)}},
    }
    if is_incremental:
        found["incremental_sync"] = {
            "type": "DatetimeBasedCursor",
            "cursor_field": "updated_at",
            "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
            "start_datetime": "2026-01-01T00:00:00Z",
            "end_datetime": until,
            "start_time_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "since"},
            "end_time_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "until"},
            **({"step": step, "cursor_granularity": "PT1S"} if step else {}),
        }
    return found


def manifest(*streams: Mapping[str, Any], is_oauth: bool = False, **config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest.

    Args:
        streams: as `stream` returns them.
        is_oauth: its config has what OAuth needs.
        config: further keys of the config and their JSON schemas.
    """
    secret = {"type": "string", "airbyte_secret": True}
    names = ("client_id", "client_secret", "refresh_token") if is_oauth else ()
    properties = {"url": {"type": "string"}, **dict.fromkeys(names, secret), **config}
    return {
        "version": "6.60.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": [streams[0]["name"]]},
        "streams": [dict(each) for each in streams],
        "spec": {
            "type": "Spec",
            "connection_specification": {"type": "object", "required": ["url", *names], "properties": properties},
        },
    }
