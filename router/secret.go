package router

import (
	"encoding/json"
	"log/slog"
)

// A Secret is a string that never shows itself in logs, errors or JSON.
type Secret string

// String, GoString, LogValue and MarshalJSON hide the secret; string(s) reveals it.
func (Secret) String() string { return redacted }

func (Secret) GoString() string { return redacted }

func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

const redacted = "[redacted]"
