package backend

import "dragontls/proxy/resp"

// question is a command that was sent, without its secrets, and what judges its reply.
type question struct {
	asked string
	judge func(*resp.Replies) error
}

// expect reads exactly the replies to what was asked, and nothing after them.
func (c *Conn) expect(want ...question) error {
	x := expectation{replies: new(resp.Replies), want: want}
	return x.receive(c)
}

// expectation is the replies that are waited for, in their order.
type expectation struct {
	replies *resp.Replies
	want    []question
	pass    func([]byte) error // takes pushes; if it is nil, none may come, unless drop is set
	drop    bool               // pushes are dropped: another client redirects its CLIENT TRACKING here. With RESP3 only
	dropped int                // bytes of them
	frames  []byte             // the first bytes of the frame that is judged
	most    int                // so many of them; maxAnswer at least
}

// receive reads until every reply has come. With drop it also waits for the end of a push whose beginning came with the last
// of them: the next reader of this connection begins with a whole frame.
func (x *expectation) receive(c *Conn) error {
	for len(x.want) > 0 || x.drop && x.replies.Open() {
		b, k, err := c.Receive()
		for len(b) > 0 && err == nil {
			var n int
			n, err = x.frame(b)
			b = b[n:]
		}
		c.Free(k)
		if err != nil {
			return err
		}
	}
	return nil
}

// frame takes one frame of b, or as much of it as is there.
func (x *expectation) frame(b []byte) (n int, err error) {
	push := (x.pass != nil || x.drop) && (x.replies.Open() && x.replies.Kind() == '>' || !x.replies.Open() && b[0] == '>')
	if !push && len(x.want) == 0 {
		return 0, ErrUnasked
	}
	if !x.replies.Open() {
		if b[0] == tlsAlert {
			return 0, ErrWantsTLS
		}
		x.frames = x.frames[:0]
	}
	n, done, err := x.replies.Next(b)
	x.frames = append(x.frames, b[:min(n, max(x.most, maxAnswer)-len(x.frames))]...)
	switch {
	case err != nil:
	case push && x.drop:
		if x.dropped += n; x.dropped > MaxPush {
			err = ErrUnasked
		}
	case push:
		err = x.pass(b[:n])
	case done:
		if err = x.want[0].judge(x.replies); err != nil {
			err = refusal(err, x.want[0].asked, x.frames)
		}
		x.want = x.want[1:]
	}
	return n, err
}

// MaxPush bounds a push that is read and dropped. Nothing of it is held, but the replies after it wait. 64 MiB take
// less than a tenth of a second to read; more would hold up everybody on the lane for longer than closing it does.
const MaxPush = 64 << 20
