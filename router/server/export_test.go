package server

import "context"

// Pass compares the database with Nomad once.
func (a *App) Pass(ctx context.Context) error { return a.runners.Pass(ctx) }
