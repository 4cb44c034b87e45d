// Package proxy accepts TLS clients and passes their RESP commands on to one backend.
//
// # The way of a command and of its reply
//
// A client connection is a session. Its reader frames the client's bytes, decides for each command whether it may pass and
// where it goes, and gathers commands into a batch. Just before the reader would wait for the client, it submits the batch:
//
//	client ─TLS─> session's reader                                              client.go   read, fill, consume
//	                │ dispatch: rules, deny list, traits                        dispatch.go dispatch; package command
//	                │ checkPassword: AUTH and HELLO with AUTH                   client_password.go; guesses.go
//	                │ classify: class, and so lane, unbounded lane or own       dispatch.go classify; command.Table.Classify
//	                │ queueFrame: a slot and the canonical bytes                dispatch.go queueFrame
//	                │ flush, before a read that waits                           dispatch.go flush
//	                ├── lane ──> choose a lane for the batch                    dispatch.go flushLane, chooseLane
//	                │            take: slots into the reply order and           lane/submit.go Submit, take
//	                │            into the lane's ring, under Lane.mu            reply.go    Admit
//	                │            written by the session if the lane is idle     lane/submit.go writeOne
//	                │            or the batch large, and not over TLS,
//	                │            or else by the lane's writer                   lane/write.go write, writeBatch
//	                └── own ───> slots into the reply order, then the write     own.go      flushOwn, openOwn
//
//	backend ──> lane's reader: frames, matches by order                         lane/read.go takeIn, deliver, next, hand
//	              │ Receive: into the session's outbox, counts the replies      reply.go    Receive
//	              │ writeReady: has each session's replies written              lane/read.go; reply.go DrainNow, writeOutbox
//	              └─TLS─> client
//	backend ──> session's pump, which reads its own connection                  pump.go     runPump; relay.go passOn
//	              │ waits for the turn, frames, matches by order                relay.go    relay, frame
//	              └─TLS─> client
//
// Package command decides what needs no more than the bytes of a command; what depends on the session is decided here. Package backend
// opens connections; it does not know who uses them. Package lane owns the connections that sessions share; what it calls of a
// session is lane.Rider. Files without a package are those of this one.
//
// With BackendConfig.Shared false (BACKEND_MODE=paired), and for a client without a certificate, a session has its own
// connection from the beginning, for life: it is the same code, on a way that never changes (session.share).
//
// # Goroutines
//
//	Server     Serve accepts. sweep, relieve, followBackend, watchLanes and netio.Watcher run until Close, which waits for them.
//	           followBackend probes the backend; goroutines of their own follow the backend's address, read the witness of
//	           its life and settle doubts about that (Backend.Run). Another one closes idle connections while dials wait for a place
//	           (room.make in package backend). Connections that part have one each (Backend.part), until the backend has closed them,
//	           or for a second.
//	handshake  runHandshake, one for each socket. It reads the header of a load balancer, if the peer is one. After the handshake it starts the session: it waits for a place of the
//	           client's identity, and dials for a session that owns its connection from birth. It ends then.
//	session    The reader (read) starts with the session and calls finish, which waits for the pump and the writers. At rest
//	           it has no goroutine: the watcher, or whoever interrupts it, starts it again.
//	           The pump (runPump) reads the own connection, while there is one, or the one that a RESET puts in its place. It ends
//	           with it and closes pump.done; it rests as the reader does.
//	           A writer (drain) runs while the client does not take at once, or cannot be given at once, what lanes brought. netio.Socket
//	           starts one of its own (writeBacklog) for the last bytes of a record.
//	lane       The reader (read) and the writer (write) end with the connection. Helpers (helper) write to some of the
//	           clients that one read brought replies for. A dial (Set.dial) starts a lane.
//
// # Words
//
//	lane            a backend connection that sessions of one lane key share; replies are matched by order alone
//	lane key        what the backend could tell sessions apart by: identity, user, password, database, protocol; and what
//	                kind of commands its lanes take: bounded, unbounded, or reads that leave a held lane (lane.Key)
//	lane set        the lanes of one key (lane.Set)
//	seat            what lanes keep of one session
//	rider           a session as lanes know it
//	unbounded lane  a lane for commands whose work has no bound in their arguments, and for sessions whose commands are slow
//	own connection  a backend connection that one session alone uses. What it is for: commands that are not audited for lanes,
//	                or that change the state of a connection
//	trait           what has to be known of a command before it passes: it blocks, its replies are not counted (command.Trait)
//	class           which connection a command may take (command.Class)
//	pump            the goroutine that reads the own connection, and the fields that it shares with the session's reader
//	batch           the commands that a session has framed and not yet submitted, with their slots (clientSide.batch)
//	slot            the place of one or more replies: in the reply order of a session, and in the ring of a lane
//	local reply     a reply of ours, such as a refusal; it has a slot too
//	turn            the right to write to a session's client. Only its holder writes
//	token           the right to write to a lane. A session that writes its own batch has it, or the lane's writer.
//	                The tokens with which an identity may dial are something else (backend.Tokens)
//	nonce           an ECHO of a random word that a lane sends now and then: it must return in exactly its place
//	owed            submitted and not yet answered
//	sticky          MULTI, WATCH or ASKING may be open on the own connection: the session stays on it until that has ended
//	own for life    what the session did cannot be repeated on another connection; own from birth: it has never used another
//	bare            what an own connection is that was not given the database and READONLY of its session, for one
//	                command that needs neither, such as SCRIPT KILL or RESET (sendBare, reset)
//	proven          the backend has answered this session, or one like it a moment ago, without asking for a password; or the
//	                connection was given one
//	note            what a reply will tell about the session, such as the database that SELECT chose
//	uncounted       replies are not counted any more, after SUBSCRIBE, MONITOR or CLIENT REPLY: the session owns its connection
//	lost            replies will never come, because their connection is gone
//	resend          a read is sent again over the own connection: its reply was lost, is late because its lane is held, or is big
//	                and others wait behind it. What the lane still brings of it is dropped
//	instant         a reading of the monotonic clock that begins with a Server (clock.Instant, Server.now). The ends of certificates are
//	                unix time instead (moment)
//	life            a time through which the backend is one process, as a connection shows that stays open, the witness, or another one
//	                that has taken its place and leads to the same process
//	doubted         of a life: the backend has moved in place, and another connection has to show whether it is the same process still
//	settings        what may change while the server serves (Change): one immutable value. The reader of a session takes over the newest
//	                ones each time that its client has sent something (follow)
//	balancer        a load balancer, which names its client in a header of the PROXY protocol (proxy_header.go)
//	account         counts the bytes that a session or a lane makes the proxy hold (netio.Account)
//	quota           what the accounts of one identity hold together (netio.Quota); relief ends sessions and lanes when it exceeds its share
//	limit           what an operator has set, or the system has, that bounds how much there may be of something. It tells the log when it
//	                is reached (package limit, limits.go)
//	refusal         why a client gets no session, or why a handshake fails (refusals.go); a command is denied instead (denials.go)
//	move            from one of the addresses that the backend's name leads to, to another one, or in place, where the address leads to
//	                another backend: connections that were dialled before come to an end, but for those that a session cannot leave (moved)
//	suspect         to take the backend for a replica, because it answers as one, maybe inside an EXEC. The connections then move away from
//	                it, unless a move has just been made (Backend.Suspect)
//	held            of a lane: its oldest command keeps the others waiting, while the backend answers on a new connection; reads leave it
//	abandoned       of a lane: it owes a reply to a client that has left, and carries no session that has begun since its oldest
//	                owed command was sent (Lane.Abandon)
//	late            of a lane, by its pulse: its backend does not keep up
//	busy            of a lane, by its pulse: it seldom has nothing to do
//	rest            an idle session without goroutines
//
// # Locks
//
// They are taken from left to right, and none of them is held across a read, or a write to a client or to a lane:
//
//	Sets.mu > Set.mu > Lane.mu (those of package lane) > replyOrder.mu > pump.mu > those of the backend, accounts, statistics and the watcher
//
// Lane.mu is held while a lane calls Rider.Admit, HasRoom and Ended, WantResend for a read of a held lane, and the function that TakeBack is
// given; most of these take replyOrder.mu. Server.mu is not held when any of these is taken, but for those of accounts. places.mu is taken
// under Server.mu (register), and nothing under it. session.end takes the locks of the session and Server.mu: its caller holds none of them.
// Two locks are held during a write, and order those who write: that of backend.Conn, and that of crypto/tls for a client. A write that may
// wait therefore belongs to the holder of the turn.
//
// # What must always hold
//
// No reply ever reaches a session that did not ask for it, because:
//
//  1. A batch enters a reply order and the ring of a lane whole, and in the same order as its bytes enter the lane (take, Admit).
//  2. Only the holder of the token writes to a lane, and hands it on after its write has returned (writeOne, writeBatch).
//  3. A reply that comes before its command was passed to a write, or for which there is no slot, closes the lane (next).
//  4. So does whatever else shows that order may be lost: a bad byte, a push inside a reply, a nonce out of place, a protocol
//     error, an EXEC that neither ran nor was discarded, a panic. Every session that the lane owes a reply is closed
//     (poison, conclude), except one whose command is sent again elsewhere. These find lost order soon; that it is not lost rests on 1, 2 and 5.
//  5. Only commands that were audited to have exactly one reply ride lanes (command.Table.Classify,
//     command/commands.txt), and only whole transactions, without any other byte between MULTI and EXEC.
//  6. The slots of a session that has ended stay in the ring: their replies come, and nobody gets them.
//  7. A session is on one connection at a time. It changes only while nothing is owed to it (settledForRoute), or nothing but a read
//     that is sent again (13).
//  8. Sessions whose commands the backend could answer differently never share a lane (lane.Key); an own connection never changes hands.
//  9. Only the holder of the turn writes to a client, between two replies of others (writeTurn).
//  10. Local replies are written in their place: the queue gives one out only when nothing before it is owed (nextLocal,
//     nextLaneRunLocked).
//  11. A command is counted in the statistics, and its slot is there if its reply is counted, before a byte of it is written.
//  12. If commands are lost with their connection, or cannot be sent because the backend is gone (isGone), nothing that their client
//     had sent after them runs: the session ends (Lose, ownEnded, failBatch), but for 13. If the backend is silent instead, or there is
//     no place for a connection, everything that the client had sent by then is answered by errors, in order, before anything else is
//     sent (failBatch, recover).
//  13. A command is sent again only if it reads, is alone in flight, has at most as many bytes as a seat keeps, and nothing of its
//     reply was delivered (WantResend, Lose). Its slot on
//     a lane that lives stays, and that reply is dropped (TakeBack, next, hand). If there is no connection to send it over, a held lane
//     still owes the reply.
//
// # Questions that a reader of this code may have
//
// Where does a reply go whose client is gone? A client that has only ended its sending still gets its replies, for eofTimeout, unless one
// of its commands blocks or its replies are not counted: the backend is told at once then (clientEOF). After
// the session's end the lane's reader pops its slots as always; session.Receive finds the queue closed and drops the bytes.
//
// Why can no reply be written twice? Its bytes are in one place at a time: with the lane's reader, in the outbox, or with the
// holder of the turn, who takes them out before it writes them.
//
// Who closes an own connection? The sweeper and a dial that waits for a place, if it is idle; the session when it ends, and when it is
// idle and was bare, dirty, or only there to prove the session; the pump when the backend has closed it or said what nobody asked for;
// a RESET, if dragontls has authenticated it, which has another dialled in its place. If nothing is owed over it, the pump mostly leaves
// it to Backend.Part, so that the backend closes first and keeps the port that waits (ownConn.part).
//
// When does a command go alone? RESET, QUIT and an EXEC that runs a queued QUIT are sent once nothing is owed. The reader sends nothing more
// until their reply has come (await), nor after a bare command or the DISCARD in place of a doomed EXEC. If replies are not counted, they
// cannot wait.
//
// What ends a lane? Its backend; a write that fails; anything of invariant 4; the end of the server; a dial that needs its place while it is
// idle (closeIdlest); Retire, once nothing is in flight: when it is idle, has carried a
// push, was dialled before a move, has been there unproven for too long, has a client that does not read, or is silent
// (lane.Sets.Watch). A silent one also ends with the last of the sessions that wait for it, and the reliever closes one that holds too
// much memory.
//
// What if a client does not read? Its replies stay in its outbox up to its budget. From a part of that on it submits nothing (outbox.tooMuchUnsent);
// beyond it the lane is retired, the session uses its own connection for good, and it is closed if others have waited for a
// second (Follow).
//
// When does a session that loses its connection go on? First, the connection must owe it nothing, or be a lane that owes it only a read that
// can be sent again (for which the backend must have answered the session before). Second, its state must be one that another connection
// can be given: it is neither sticky nor on its own connection for life, and its client believes in no script (Lose, ownEnded, scripts.go).
// If the backend is gone when any session asks for something, the session ends without an error (endUnsent); in mode paired a client that has
// just connected does not wait for that (failsAtOnce). A session that has connected since gets the words of a backend that is loading (loading.go). If commands cannot be sent for another reason, errors can say so in order, as long as that leaves the session's
// state in no doubt (failBatch).
//
// What if the backend does not set up a connection as asked? It is not asked again for the command that waits (isFinal): the command
// gets the backend's own error, or ours if the backend refuses credentials (unavailable), and the session ends if it was refused, or if
// its state is in doubt (failBatch).
//
// Who may end a session? Any goroutine, once, with a reason (session.end). The reader says goodbye and closes the socket; kill resets it.
//
// Who answers AUTH? If dragontls authenticates for the client, the session does, in the place of its reply (checkPassword), and a HELLO
// goes on without its AUTH. Otherwise the backend does.
//
// In which database and protocol is a session? In those of which the backend's replies told (notes.go), never in those of
// which a command told: Dragonfly's AUTH changes the database, and a bare HELLO the protocol. A session that authenticates
// itself keeps its own connection for life. After a script that is not harmless, or a SELECT inside a transaction, nobody knows the
// database (sharing.database).
//
// What wakes a reader that waits for its client? Bytes of the client, or interrupt: a read deadline that has passed. fill then
// asks woken what it is wanted for. While it waits in hold, notifyLocked wakes it too.
//
// Where is memory counted? memory.go has the table. The account of a session or a lane belongs to the quota of an identity.
//
// How does a new lane come to be? A session that finds none of its key waits for one (Await); growWith dials another after a
// submission, if the lane used and the least loaded one are crowded or late and the key may have more (calledFor). Set.dial proves it
// with a PING that no loading backend answers, an empty transaction, if the user may run one, and a nonce, before anybody rides it.
package proxy
