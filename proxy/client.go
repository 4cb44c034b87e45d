package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"dragontls/proxy/resp"
)

// read is the reader goroutine: it frames the client's commands, judges them, and writes them to the backend in
// batches. It ends when the session does; the server waits for it.
func (s *session) read() {
	defer s.finish()
	defer func() {
		if v := recover(); v != nil {
			s.recovered(v)
		}
	}()
	for !s.ended() {
		if s.server.buffers.scarce() && s.beforeWait() == nil {
			s.server.waitForMemory(s.done)
		}
		s.fill()
		if !s.consume() {
			break
		}
		if s.client.eof {
			s.clientEOF()
			break
		}
	}
	s.linger()
}

// fill reads once into the buffer. The bytes gathered so far go to the backend before it waits (flush).
func (s *session) fill() {
	c := &s.client
	s.makeRoom()
	n, err := c.conn.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		s.hand.Store(handFull)
		s.stripe.bytesIn.Add(uint64(n))
		s.lastActive.Store(s.server.now())
	}
	switch {
	case err == nil:
	case c.flushErr != nil || errors.Is(err, os.ErrDeadlineExceeded):
		// the session has ended, or the reader was woken
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		c.eof = true
	default:
		c.failed = err
		s.kill(closeClientError)
	}
}

// beforeWait runs before a read that waits for the client: what was taken is passed on first.
func (s *session) beforeWait() error {
	err := s.flush()
	switch c := &s.client; {
	case c.holding:
	case c.r < c.w || c.streamed != nil:
		s.hand.Store(handHalf)
	default:
		s.hand.Store(handEmpty)
	}
	return err
}

// makeRoom gives the buffer at least some room: a small one while little comes, a page when reads fill that, a
// chunk for a command that a page cannot hold.
func (s *session) makeRoom() {
	c := &s.client
	full := c.w == len(c.buf)
	if c.r == c.w {
		c.r, c.w = 0, 0
		switch {
		case c.chunk != nil, c.page != nil && !full:
			s.setBuf(nil, nil)
		case c.page == nil && full:
			s.setBuf(s.server.buffers.page(), nil)
		}
		return
	}
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	if c.w < len(c.buf) {
		return
	}
	if c.page == nil && c.chunk == nil {
		s.setBuf(s.server.buffers.page(), nil)
	} else if c.chunk == nil {
		s.setBuf(nil, s.server.buffers.chunk())
	}
}

// setBuf moves the unread bytes to another buffer and gives the old one back.
func (s *session) setBuf(p *page, k *chunk) {
	c := &s.client
	to := c.small[:]
	if p != nil {
		to = p[:]
	}
	if k != nil {
		to = k[:]
	}
	c.w = copy(to, c.buf[c.r:c.w])
	c.r = 0
	c.buf = to
	if c.page != nil {
		s.server.buffers.freePage(c.page)
	}
	if c.chunk != nil {
		s.server.buffers.freeChunk(c.chunk)
	}
	c.page, c.chunk = p, k
}

func (s *session) dropBuffers() {
	c := &s.client
	c.r, c.w = 0, 0
	s.setBuf(nil, nil)
	if c.outChunk != nil {
		s.server.buffers.freeChunk(c.outChunk)
		c.out, c.outChunk = nil, nil
	}
}

// consume frames what is in the buffer. false: nothing more is to be taken from this client. hot
func (s *session) consume() bool {
	c := &s.client
	for c.r < c.w && !c.ending {
		if c.streamed != nil {
			if !s.stream() {
				break
			}
			continue
		}
		in := c.buf[c.r:c.w]
		n, complete, err := c.cmds.Next(in)
		if err != nil {
			if !s.protocolError(err) {
				return false
			}
			c.r += n
			continue
		}
		if complete {
			c.r += n
			if c.cmds.Args() > 0 && !s.command(in[:n]) {
				return false
			}
			continue
		}
		if len(in) < maxHeld {
			break
		}
		if !s.bigCommand(in) {
			return false
		}
	}
	return c.flushErr == nil && !c.ending
}

// command judges a command that is held as a whole, and queues it or its refusal. hot
func (s *session) command(frame []byte) bool {
	c := &s.client
	name := c.cmds.Name(frame)
	cmd, rest := s.server.commands.lookup(name)
	exact := len(name) == len(cmd.name)
	sub := rest
	if len(rest) == 0 {
		sub = c.cmds.Sub(frame)
	}
	args := c.cmds.Args()
	canonical := c.cmds.Canonical()
	if !canonical {
		frame = c.cmds.AppendCanonical(nil, frame)
	}
	if text := cmd.refusal(sub); text != nil {
		return s.refuse(cmd, text)
	}
	t := cmd.traits
	if t == 0 {
		s.count(cmd)
		s.queueFrame(frame, slotReplies, false)
		return true
	}
	if t&(inspected|blocksIf) != 0 {
		c.args = resp.SplitArgs(frame, c.args[:0])
		if text := cmd.inspect(c.args, rest, s.ownUser()); text != nil {
			return s.refuse(cmd, text)
		}
		if t&blocksIf != 0 && contains(c.args, wordBlock) {
			t |= blocking
		}
	}
	if !exact {
		t &^= opensMulti | endsMulti | resets | quits // "EXEC " with its blank is not known to the backend
	}
	if t&uncountIf != 0 && startsWithReply(sub) {
		t |= uncounted
	}
	return s.special(cmd, t, frame, args)
}

func startsWithReply(sub []byte) bool {
	return len(sub) >= len(wordReply) && bytes.EqualFold(sub[:len(wordReply)], wordReply)
}

// special queues a command that changes how the session goes on.
func (s *session) special(cmd *command, t trait, frame []byte, args int) bool {
	c := &s.client
	switch {
	case t&uncounted != 0:
		if c.doomed {
			return s.refuse(cmd, textDoomed)
		}
		s.count(cmd)
		if !c.uncount {
			c.uncount = true
			s.subscribed.Store(true)
			c.pend = append(c.pend, slot{kind: slotUncounted})
		}
		s.queueFrame(frame, slotReplies, false)
		return true
	case t&resets != 0:
		s.count(cmd)
		return s.reset(frame)
	case t&quits != 0 && args == 1:
		s.count(cmd)
		return s.quit(frame)
	}
	s.count(cmd)
	switch {
	case args != 1:
	case t&opensMulti != 0:
		c.multi = true
	case t&endsMulti != 0:
		if c.doomed && cmd.name == "EXEC" {
			return s.discard()
		}
		c.multi, c.doomed = false, false
	}
	s.queueFrame(frame, slotReplies, t&blocking != 0)
	return true
}

// queueFrame adds a frame to the batch. hot
func (s *session) queueFrame(frame []byte, kind slotKind, blocks bool) {
	c := &s.client
	if !c.uncount {
		if n := len(c.pend); n > 0 && kind == slotReplies && c.pend[n-1].kind == slotReplies && c.pend[n-1].blocking == blocks {
			c.pend[n-1].n++
		} else {
			c.pend = append(c.pend, slot{kind: kind, blocking: blocks, n: 1})
		}
	}
	s.add(frame)
}

// add puts canonical bytes into the batch; a full one is written. hot
func (s *session) add(b []byte) {
	c := &s.client
	if len(c.out)+len(b) > chunkSize {
		s.flush()
	}
	if c.outChunk == nil {
		c.outChunk = s.server.buffers.chunk()
		c.out = c.outChunk[:0]
	}
	c.out = append(c.out, b...)
}

// count adds up runs of the same command; flush hands them on. hot
func (s *session) count(cmd *command) {
	c := &s.client
	if c.last != cmd {
		s.handOnCount()
		c.last = cmd
	}
	c.lastN++
}

func (s *session) handOnCount() {
	c := &s.client
	if c.lastN > 0 {
		s.stripe.commands[c.last.id].Add(c.lastN)
		c.lastN = 0
	}
}

// refuse answers a command in its place. Inside MULTI that dooms the transaction; where replies cannot be counted
// the session ends with it.
func (s *session) refuse(cmd *command, text []byte) bool {
	c := &s.client
	s.stripe.local[cmd.id].Add(1)
	if c.multi {
		c.doomed = true
	}
	if c.uncount {
		s.lastWord(text, closeRefused)
		return false
	}
	c.pend = append(c.pend, slot{kind: slotLocal, n: 1, text: text})
	if len(c.pend) >= 256 {
		return s.flush() == nil
	}
	return true
}

// lastWord queues text behind everything that is owed and ends the session behind it.
func (s *session) lastWord(text []byte, reason closeReason) {
	c := &s.client
	c.pend = append(c.pend, slot{kind: slotFinal, n: 1, text: text, reason: reason})
	c.ending = true
	s.flush()
}

func (s *session) protocolError(err error) bool {
	var pe *resp.ProtocolError
	if !errors.As(err, &pe) {
		s.lastWord(textInternal, closeInternalError)
		return false
	}
	text := pe.AppendReply(nil)
	if !pe.Fatal {
		return s.refuse(s.server.commands.other, text)
	}
	reason := closeProtocol
	if strings.Contains(pe.Text, "HTTP") {
		reason = closeHTTP
	}
	s.lastWord(text, reason)
	return false
}

// bigCommand begins to pass on, or to drop, a command that is too big to be held.
func (s *session) bigCommand(head []byte) bool {
	c := &s.client
	cmd, sub := s.server.commands.other, []byte(nil)
	if name := c.cmds.Name(head); name != nil {
		var rest []byte
		cmd, rest = s.server.commands.lookup(name)
		if sub = rest; len(rest) == 0 {
			sub = c.cmds.Sub(head)
		}
	}
	text := cmd.refusal(sub)
	switch {
	case text != nil:
	case cmd.traits&inspected != 0:
		text = textTooLong
	case cmd.traits&uncounted != 0 && c.doomed:
		text = textDoomed
	}
	c.streamed, c.skipping = cmd, text != nil
	if text != nil {
		return s.refuse(cmd, text)
	}
	t := cmd.traits
	if t&(blocksIf) != 0 {
		t |= blocking
	}
	// Only the first bytes are queued here; a special command of this size is an error of arity to the backend,
	// but for subscriptions.
	return s.special(cmd, t&^(resets|quits|opensMulti|endsMulti), nil, 2)
}

// stream passes on what is there of a big command. false: more has to be read first.
func (s *session) stream() bool {
	c := &s.client
	in := c.buf[c.r:c.w]
	var n int
	var done bool
	var err error
	if c.skipping {
		n, done, err = c.cmds.Skip(in)
	} else {
		// Re-encoded headers are never longer than what came, but for the first of a frame.
		if cap(c.out)-len(c.out) < len(in)+64 {
			s.flush()
			s.add(nil)
		}
		if room := cap(c.out) - 64; len(in) > room {
			in = in[:room]
		}
		c.out, n, done, err = c.cmds.Stream(c.out, in)
	}
	if err != nil {
		s.abandon(err)
		return false
	}
	c.r += n
	if done {
		c.streamed = nil
	}
	return n > 0
}

// abandon ends the session in the middle of a command that the backend has a part of: no reply to it will come.
func (s *session) abandon(err error) {
	c := &s.client
	c.streamed = nil
	c.r = c.w
	if !c.skipping && !c.uncount {
		if s.flush() != nil || !s.hold(func() bool { return s.queue.owed <= 1 }) {
			return
		}
		s.queue.forget()
	}
	s.protocolError(err)
}

// ownUser says that dragontls authenticates this session's connection. It waits until there is one.
func (s *session) ownUser() bool {
	up, err := s.upstream()
	return err != nil || up.authenticated()
}

// flush writes the batch: first the places of its replies, then its bytes. It runs before every read that waits.
func (s *session) flush() error {
	c := &s.client
	if c.flushErr != nil {
		return c.flushErr
	}
	s.handOnCount()
	if len(c.pend) == 0 && len(c.out) == 0 {
		return nil
	}
	var up *backendConn
	if len(c.out) > 0 {
		var err error
		if up, err = s.upstream(); err != nil {
			s.answerUnavailable(err)
			return c.flushErr
		}
	}
	now := s.server.now()
	for i := range c.pend {
		c.pend[i].sent = now
	}
	if s.queue.push(c.pend) {
		s.writeLocals()
	}
	clear(c.pend)
	c.pend = c.pend[:0]
	if cap(c.pend) > 64 {
		c.pend = nil
	}
	if len(c.out) == 0 {
		return nil
	}
	_, err := up.write(c.out)
	s.server.buffers.freeChunk(c.outChunk)
	c.out, c.outChunk = nil, nil
	if err != nil && !s.ended() {
		// The pump reads what the backend still had to say, and ends the session.
		c.flushErr = err
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.end(closeBackendError)
		}
		<-s.pump.done
	}
	return c.flushErr
}

// answerUnavailable answers everything that waits to be sent, and ends the session.
func (s *session) answerUnavailable(err error) {
	c := &s.client
	text, reason := textUnavailable, closeUnavailable
	if errors.Is(err, errBackendAuth) || errors.Is(err, errBackendOpen) {
		text, reason = textBackendAuth, closeBackendAuth
	}
	final := slot{kind: slotFinal, n: 1, text: nil, reason: reason}
	for i, p := range c.pend {
		if p.kind.local() {
			if p.kind == slotFinal {
				final.text = p.text
				c.pend[i] = slot{kind: slotLocal}
			}
			continue
		}
		c.pend[i] = slot{kind: slotLocal, n: max(1, p.n), text: text}
	}
	c.flushErr = err
	c.ending = true
	if s.queue.push(append(c.pend, final)) {
		s.writeLocals()
	}
}

// upstream waits for the backend connection, at most unavailableTimeout.
func (s *session) upstream() (*backendConn, error) {
	p := &s.pump
	p.mu.Lock()
	up, err := p.up, p.upErr
	if up == nil && err == nil && p.wanted.IsZero() {
		p.wanted = time.Now()
		close(p.want)
	}
	p.mu.Unlock()
	if up != nil || err != nil {
		return up, err
	}
	s.queue.notify()
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	for !s.queue.closed {
		p.mu.Lock()
		up, err = p.up, p.upErr
		p.mu.Unlock()
		if up != nil || err != nil {
			return up, err
		}
		s.queue.changed.Wait()
	}
	return nil, errEnded
}

// hold waits until cond, called under the queue's lock, says so. Meanwhile it reads on, up to a chunk, so that a
// client that goes away is noticed.
func (s *session) hold(cond func() bool) bool {
	c, q := &s.client, &s.queue
	c.holding = true
	defer func() { c.holding = false }()
	limited := false
	for {
		q.mu.Lock()
		if cond() || q.closed {
			ok := !q.closed
			q.mu.Unlock()
			return ok
		}
		if c.eof || c.w-c.r == chunkSize {
			if c.eof && q.blocked > 0 {
				q.mu.Unlock()
				s.end(closeClient)
				return false
			}
			if c.eof && c.uncount && !limited {
				// What is awaited may never be answered (behind CLIENT REPLY SKIP): nobody waits for it for ever.
				limited = true
				q.mu.Unlock()
				s.limitBackend(time.Now().Add(lingerTimeout))
				defer s.limitBackend(time.Time{})
				continue
			}
			q.changed.Wait()
			q.mu.Unlock()
			continue
		}
		q.wake = func() { c.conn.SetReadDeadline(time.Now()) }
		q.mu.Unlock()
		s.fill()
		q.mu.Lock()
		q.wake = nil
		if !q.closed {
			c.conn.SetReadDeadline(time.Time{})
		}
		q.mu.Unlock()
		if c.failed != nil {
			return false
		}
	}
}

// reset passes RESET on alone: nothing is owed before it, and nothing follows before its reply is known.
func (s *session) reset(frame []byte) bool {
	c := &s.client
	frame = append([]byte(nil), frame...)
	if !c.uncount {
		if s.flush() != nil || !s.hold(func() bool { return s.queue.owed == 0 }) {
			return false
		}
	}
	refused, ok := s.await(awaitReset, slotReset, frame)
	if !ok {
		return false
	}
	if refused && c.uncount && s.ownUser() {
		// Whose reply that error was cannot be known: the connection may act as another user by now.
		s.end(closeReset)
		return false
	}
	if !refused {
		c.multi, c.doomed, c.uncount = false, false, false
		s.subscribed.Store(false)
	}
	return true
}

// discard goes in the place of a doomed EXEC. Where the backend does not permit it, the transaction is still there
// and stays doomed.
func (s *session) discard() bool {
	c := &s.client
	refused, ok := s.await(awaitDiscard, slotExec, resp.AppendCommand(nil, "DISCARD"))
	c.multi, c.doomed = refused, refused
	return ok
}

// quit passes QUIT on, and nothing behind it unless it is refused.
func (s *session) quit(frame []byte) bool {
	refused, ok := s.await(awaitQuit, slotQuit, frame)
	if !ok {
		return false
	}
	if !refused {
		s.client.r = s.client.w
		s.limitBackend(time.Now().Add(lingerTimeout))
		<-s.pump.done
		return false
	}
	return true
}

// await queues a frame, flushes it, and waits for what its reply says.
func (s *session) await(a awaited, kind slotKind, frame []byte) (refused, ok bool) {
	p := &s.pump
	p.mu.Lock()
	p.awaited, p.outcome = a, outcomeNone
	p.mu.Unlock()
	s.queueFrame(frame, kind, false)
	if s.flush() != nil {
		return false, false
	}
	var o outcome
	ok = s.hold(func() bool {
		p.mu.Lock()
		o = p.outcome
		p.mu.Unlock()
		return o != outcomeNone
	})
	return o == outcomeRefused, ok
}

// clientEOF: the client sends no more. What it is owed still arrives, unless a command of it waits for others: then
// the backend is told at once, so that no element is popped for nobody.
func (s *session) clientEOF() {
	c := &s.client
	if c.ending || s.flush() != nil || s.ended() {
		return
	}
	up, _ := s.upstreamNow() // nil: nothing was sent yet
	unanswerable := 0
	if c.streamed != nil && !c.skipping && !c.uncount {
		unanswerable = 1 // the command that ends here in its middle
	}
	if up == nil || !s.settled(unanswerable) && !s.waiting() {
		s.end(closeClient)
		return
	}
	if s.waiting() {
		up.closeWrite()
		s.limitBackend(time.Now().Add(lingerTimeout))
		<-s.pump.done
	}
	s.end(closeClient)
}

// limitBackend bounds the wait for the backend's next bytes.
func (s *session) limitBackend(end time.Time) {
	if up, _ := s.upstreamNow(); up != nil {
		up.sock.SetReadDeadline(end)
	}
}

// settled waits until no more than rest replies are owed to the client. false: a command waits for others, or the session has ended.
func (s *session) settled(rest int) bool {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && q.blocked == 0 && (q.owed > rest || q.turn && !q.uncounted) {
		q.changed.Wait()
	}
	return !q.closed && q.blocked == 0
}

// linger waits for our last word to leave and drops what the client still sends: closing a socket with unread
// bytes would send a reset that destroys it.
func (s *session) linger() {
	c := &s.client
	if !c.ending || c.failed != nil {
		return
	}
	c.sock.beforeWait = nil
	c.r, c.w = 0, 0
	s.setBuf(nil, nil)
	for !s.ended() {
		_, err := c.conn.Read(c.small[:])
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if !s.settled(0) {
			s.end(closeClient)
		}
		<-s.done
	}
	c.conn.CloseWrite()
	c.sock.closeWrite()
	for limit := time.Now().Add(lingerTimeout); time.Now().Before(limit); {
		// end may have set a deadline after this one.
		c.sock.SetReadDeadline(limit)
		if _, err := io.Copy(io.Discard, c.sock); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}
