package backend

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// Whatever answers at a port that was to speak TLS, the failure is explained or stays as it is.
func TestLookAgainAtAPortThatSpeaksNoTLS(t *testing.T) {
	for answer, noTLS := range map[string]bool{
		"+PONG\r\n": true, "-NOAUTH Authentication required.\r\n": true,
		"\r\n": false, "+PONG": false, "": false, "HTTP/1.1 400 Bad Request\r\n\r\n": false, "-ERR Bad TLS header, double check if you enabled TLS for your client.\r\n": false,
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { // ends when LookAgain has closed its connection, or with the listener
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			c.Read(make([]byte, 64))
			io.WriteString(c, answer)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := LookAgain(ctx, ln.Addr().String(), true, io.EOF); errors.Is(err, ErrNoTLS) != noTLS || !errors.Is(err, io.EOF) {
			t.Errorf("%q: got %v", answer, err)
		}
		cancel()
		ln.Close()
	}
}
