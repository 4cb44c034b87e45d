// Package netio has the sockets of clients and of the backend, the buffers for bytes that are on their way, and the accounts
// that count what peers make the proxy hold. A read holds no memory while it waits, and a write to a client need not wait.
// The package knows nothing of commands, sessions and lanes.
package netio
