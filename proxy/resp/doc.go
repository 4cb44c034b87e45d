// Package resp frames RESP: the commands that a client sends and the replies that a backend sends. Bytes in, bytes
// out: it knows no sockets, never allocates for a length that was only announced, and looks at each byte once.
//
// What a client may send follows Dragonfly v1.40: arrays of bulks with lenient numbers, and inline lines. What a
// backend may send is RESP2 and RESP3 (https://redis.io/docs/latest/develop/reference/protocol-spec/), streamed strings and
// aggregates and attributes included.
package resp
