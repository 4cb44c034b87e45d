// Package proxytest holds what tests of the proxy stand on: Relay injures traffic on purpose, Gate is a socket
// that takes nothing while it is shut, Dragonfly plays the wire of Dragonfly v1.40.1 in memory, and Play replays recorded
// transcripts against either of them, the proxy or a real server.
package proxytest
