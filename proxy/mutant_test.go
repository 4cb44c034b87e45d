package proxy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutant is a fault that a test must find. Each edit replaces text in a copy of a file; the word MUTANT in the new text becomes a
// condition that holds in the run that has this fault switched on.
type mutant struct {
	name       string // names the invariant of doc.go that it breaks, if it breaks one
	edits      []edit
	test, says string // the test that finds it, with its package if that is another one, and a part of what it prints
}

type edit struct{ file, old, new string }

// mutants in the order in which they are applied.
var mutants = []mutant{
	{"the token is dropped between unlock and write: invariant 2", []edit{
		{"lane/submit.go", "	l.token = true\n", "	l.token = true\n	if MUTANT { l.token, t.direct = false, true }\n"},
		{"lane/submit.go", "	l.token = waits\n", "	if !MUTANT { l.token = waits }\n"},
		{"lane/submit.go", "		panic(\"the token of a lane was handed on twice\")\n", "		if !MUTANT { panic(\"the token of a lane was handed on twice\") }\n"},
	}, "TestOnlyWhoHasTheTokenWrites", "want "},
	{"a panic of a session that has the token keeps the lane: invariant 4", []edit{
		{"lane/submit.go", "	if v := recover(); v != nil {\n		l.poison()\n", "	if v := recover(); v != nil {\n		if !MUTANT { l.poison() }\n"},
	}, "TestPanicOnALaneTakesWhoIsOnItAlong/of_a_session_that_writes", "it does not end"},
	{"a panic of the lane's writer keeps the lane: invariant 4", []edit{
		{"lane/write.go", "			l.set.all.c.Panicked(v)\n			l.poison()\n", "			l.set.all.c.Panicked(v)\n			if !MUTANT { l.poison() }\n"},
	}, "TestPanicOnALaneTakesWhoIsOnItAlong/of_its_writer", "it does not end"},
	{"a panic of the lane's reader is a loss like any other: invariant 4", []edit{
		{"lane/read.go", "			l.set.all.c.Panicked(v)\n			l.poison()\n", "			l.set.all.c.Panicked(v)\n			if !MUTANT { l.poison() }\n"},
	}, "TestPanicOnALaneTakesWhoIsOnItAlong/of_its_reader", "where the end should come"},
	{"a slot is popped twice: invariant 1", []edit{
		{"lane/read.go", "	r.cur = l.slots.Pop()\n	r.left, r.open", "	r.cur = l.slots.Pop()\n	if MUTANT && l.slots.Len() > 0 { r.cur = l.slots.Pop() }\n	r.left, r.open"},
	}, "TestClientThatVanishesFromALaneDisturbsNobody/FIN", "want "},
	{"the slot of a session that has ended stays: invariant 6", []edit{
		{"lane/read.go", "	r.cur = l.slots.Pop()\n", "	r.cur = *l.slots.At(0)\n	if !MUTANT || r.cur.seat == nil || !r.cur.seat.Rider.Ended() { l.slots.Pop() }\n"},
	}, "TestClientThatVanishesFromALaneDisturbsNobody/RST", "want "},
	{"whatever comes in a nonce's place is taken for it: invariant 4", []edit{
		{"lane/read.go", "	r.nonce = append(r.nonce, b...)\n", "	r.nonce = append(r.nonce, b...)\n	if MUTANT { r.nonce = r.nonce[:0]; return nil }\n"},
	}, "TestLaneWhoseRepliesMayBeOutOfPlaceTakesWhoIsOnItAlong/a_wrong_nonce", "where the end should come"},
	{"a nonce goes between MULTI and EXEC: invariant 5", []edit{
		{"lane/submit.go", "	return append(out, nonce...)\n", `	const multi = "*1\r\n$5\r\nMULTI\r\n"
	if MUTANT && len(out) > len(multi) && string(out[:len(multi)]) == multi {
		return append(append(append([]byte(nil), out[:len(multi)]...), nonce...), out[len(multi):]...)
	}
	return append(out, nonce...)
`},
	}, "TestTransactionOnALaneIsWrittenWithoutGaps", "a nonce inside a transaction"},
	{"a session changes its connection while replies are owed: invariant 7", []edit{
		{"route.go", "	if !s.park(func() bool { return s.queue.owed == 0 }) {\n", "	if !MUTANT && !s.park(func() bool { return s.queue.owed == 0 }) {\n"},
	}, "TestSessionChangesItsConnectionWhenNothingIsOwed", "before the reply"},
	{"EXPIRE rides a lane whatever its arguments: invariant 5", []edit{
		{"command/table.go", "		case holdsLineBreak(frame, args):\n", "		case holdsLineBreak(frame, args) && !(MUTANT && c.Name == \"EXPIRE\"):\n"},
	}, "TestLineBreakKeepsACommandFromLanes", "rode a lane"},
	{"a HELLO inside MULTI changes nothing: invariant 8", []edit{
		{"special.go", "	case s.sticky():\n		s.keepOwn()\n", "	case s.sticky():\n		if !MUTANT || cmd.Name != \"HELLO\" { s.keepOwn() }\n"},
	}, "TestWhatPinsASessionToItsOwnConnection/HELLO_inside_a_transaction", "own for life: false, want true"},
	{"a connection whose user was dropped by RESET is kept: invariant 8", []edit{
		{"reset.go", "	return up != nil && up.Authenticated()\n", "	return !MUTANT && up != nil && up.Authenticated()\n"},
	}, "TestResetOfASharedSessionHasAFreshConnection", "behind RESET on its connection"},
	{"any error to EXEC leaves its lane open: invariant 4", []edit{
		{"lane/read.go", "!backend.EndsTransaction(&r.replies) {\n", "!backend.EndsTransaction(&r.replies) && !(MUTANT && kind == '-') {\n"},
	}, "TestExecThatIsNeitherRunNorDiscardedEndsItsLane/an_error", "where the end should come"},

	{"the reply on the lane to a command that was sent again is passed on: invariant 13", []edit{
		{"lane/watch.go", "			o.resent = f(true)\n", "			o.resent = f(true) && !MUTANT\n"},
	}, "TestReplyToWhatWasSentAgainIsDropped/it_comes", "want "},
	{"a lane that is lost answers a command that was sent again: invariant 13", []edit{
		{"lane/end.go", "		case s.resent:\n", "		case s.resent && !MUTANT:\n"},
	}, "TestReplyToWhatWasSentAgainIsDropped/the_lane_is_lost_first", "want "},
	{"a reply to what no write has taken is passed on: invariant 3", []edit{
		{"lane/read.go", "l.slots.At(0).at >= l.passed {", "!MUTANT && l.slots.At(0).at >= l.passed {"},
	}, "TestReplyToWhatIsNotWrittenTakesTheLaneAlong", "where the end should come"},
	{"whatever a framer can make sense of is a reply: invariant 4", []edit{
		{"lane/dial.go", "	l.in.replies.Strict = true\n", "	l.in.replies.Strict = !MUTANT\n"},
	}, "TestLaneWhoseRepliesMayBeOutOfPlaceTakesWhoIsOnItAlong", "where the end should come"},
	{"a protocol error is passed on: invariant 4", []edit{
		{"lane/read.go", "[]byte(\"ERR Protocol error\")) {", "[]byte(\"ERR Protocol error\")) && !MUTANT {"},
	}, "TestLaneWhoseRepliesMayBeOutOfPlaceTakesWhoIsOnItAlong", "where the end should come"},
	{"an internal error is passed on: invariant 4", []edit{
		{"lane/read.go", "[]byte(\"ERR Internal Error\")) {", "[]byte(\"ERR Internal Error\")) && !MUTANT {"},
	}, "TestInternalErrorOfTheBackendReachesNobody", "got \"-ERR Internal Error"},
	{"a poisoned lane answers by errors: invariant 4", []edit{
		{"lane/end.go", "		case poisoned, i == 0", "		case poisoned && !MUTANT, i == 0"},
	}, "TestLaneWhoseRepliesMayBeOutOfPlaceTakesWhoIsOnItAlong", "where the end should come"},
	{"half a reply is lost like any other", []edit{
		{"lane/end.go", " i == 0 && l.in.half:", " i == 0 && l.in.half && !MUTANT:"},
	}, "TestHalfAReplyEndsItsSessionAlone", "never: 1 sessions closed for lane_error"},
	{"a session of a backend that is gone gets an error", []edit{
		{"loss.go", "	if isGone(err) {\n", "	if isGone(err) && !MUTANT {\n"},
	}, "TestSessionOfABackendThatIsGoneEndsWithoutAnError", "answered by errors for ever"},
	{"a session that was served is told that the backend is loading", []edit{
		{"loading.go", "	if s.at.whileLoading == backend.LoadingNoted {\n", "	if s.at.whileLoading == backend.LoadingNoted && !MUTANT {\n"},
	}, "TestSessionOfABackendThatIsGoneEndsWithoutAnError", "got \"-LOADING Redis"},
	{"a session goes on that was never answered", []edit{
		{"loss.go", "	case !q.answered:\n", "	case !q.answered && !MUTANT:\n"},
	}, "TestLossEndsWhoWasNeverAnswered", "where the end should come"},
	{"a connection without the session's database is kept", []edit{
		{"bare.go", "	if up != nil && up.Bare {\n", "	if up != nil && up.Bare && !MUTANT {\n"},
	}, "TestBusyBackendAnswersWhoeverWaits", "GET a: \"$-1"},
	{"a session goes on with half a state", []edit{
		{"loss.go", "	final := c.stateful && !up || ", "	final := c.stateful && !up && !MUTANT || "},
	}, "TestStateCommandThatCannotBeSentEndsTheSession", "still open after"},
	{"what was read before the end of a loss is sent: invariant 12", []edit{
		{"big.go", "	if c.recovering {\n		c.streamed, c.skipping", "	if c.recovering && !MUTANT {\n		c.streamed, c.skipping"},
	}, "TestBigCommandWhileTheBackendIsSilent", "-LOADING"},
	{"a lane owes beside the own connection: invariant 7", []edit{
		{"reply.go", "	case toLane && q.owed > 0 && (!q.onLane || q.out.resend != nil):", "	case !MUTANT && toLane && q.owed > 0 && (!q.onLane || q.out.resend != nil):"},
	}, "TestNothingIsSubmittedToALaneOnceACommandIsToBeAskedAgain", "2 owed"},
	{"a command is sent again that was answered: invariant 13", []edit{
		{"resend.go", "q.owed != 1 || q.onLane", "q.owed != 1 && !MUTANT || q.onLane"},
	}, "TestWhatWasAnsweredIsNotAskedAgain", "nothing is owed: got \"x\""},
	{"a command is sent again whose reply its lane brings: invariant 13", []edit{
		{"resend.go", "|| q.onLane && !laneOwes:", "|| q.onLane && !laneOwes && !MUTANT:"},
	}, "TestWhatWasAnsweredIsNotAskedAgain", "its lane brings it: got \"x\""},
	{"a local reply overtakes those of a lane: invariant 10", []edit{
		{"reply_order.go", "	if q.out.size > 0 || !q.localFirstLocked() {\n", "	if !MUTANT && q.out.size > 0 || !q.localFirstLocked() {\n"},
	}, "TestRepliesOfOursComeInTheirPlaceAmongThoseOfALane", "got \"-NOPERM"},
	{"the own connection speaks inside a reply of a lane: invariant 9", []edit{
		{"relay.go", "(q.turn || q.half)", "(q.turn || q.half && !MUTANT)"},
	}, "TestOwnConnectionSaysNothingInsideALanesReply", "want \"e of on lane"},
	{"the own connection answers what a lane owes: invariant 3", []edit{
		{"relay.go", "	owe = q.owesElsewhere() && !q.uncounted()\n", "	owe = !MUTANT && q.owesElsewhere() && !q.uncounted()\n"},
		{"relay.go", "	if q.owesElsewhere() || q.slots.Len() == 0 ||", "	if q.owesElsewhere() && !MUTANT || q.slots.Len() == 0 ||"},
	}, "TestOwnConnectionCostsNothingThatALaneOwes", "still open after \"-ERR unasked"},
	{"something is written after what was dropped: invariant 9", []edit{
		{"reply.go", "	if q.closed {\n		q.out.clear", "	if q.closed && !MUTANT {\n		q.out.clear"},
	}, "TestNothingIsWrittenBehindWhatWasDropped", "bytes and then \"-NOPERM"},
	{"sessions with different databases share a lane: invariant 8", []edit{
		{"route.go", "Credential: s.credential, Database: st.Database, RESP3", "Credential: s.credential, Database: map[bool]int{false: st.Database}[MUTANT], RESP3"},
	}, "TestLanesAreKeyed", "want \"$3\\r\\n3 2"},
	{"sessions with different protocols share a lane: invariant 8", []edit{
		{"route.go", "RESP3: st.RESP3, ReadOnly: st.ReadOnly, Unbounded", "RESP3: st.RESP3 && !MUTANT, ReadOnly: st.ReadOnly, Unbounded"},
	}, "TestLanesAreKeyed", "want \"$3\\r\\n0 3"},
	{"a command is counted after it was written: invariant 11", []edit{
		{"reply.go", "	s.tally(s.stripe.lane)\n", "	if !MUTANT { s.tally(s.stripe.lane) }\n"},
		{"dispatch.go", "	result := l.Submit(&s.seat, &c.out, s.server.now())\n", "	result := l.Submit(&s.seat, &c.out, s.server.now())\n	if MUTANT { s.tally(s.stripe.lane) }\n"},
	}, "TestCommandIsCountedBeforeItIsWritten", "2 are counted when a session writes the next after 2"},
	{"a transaction is doomed by nothing", []edit{
		{"special.go", "	s.transact(txDisturbs)\n", "	if !MUTANT { s.transact(txDisturbs) }\n"},
	}, "TestDoomedTransactionNeverRuns", "want \"-EXECABORT"},
	{"a connection keeps whatever user a refused RESET left it: invariant 8", []edit{
		{"reset.go", "s.mustReplace() && !s.clientAuth() {", "s.mustReplace() && !s.clientAuth() && !MUTANT {"},
	}, "TestForgedRepliesToResetKeepTheUser", "without AUTH"},
	{"a connection that authenticates again stays where AUTH puts it: invariant 8", []edit{
		{"backend/again.go", "	case !a.authenticated, a.db == 0:", "	case !a.authenticated, a.db == 0, MUTANT:"},
	}, "TestRefusedResetKeepsTheDatabase/paired/noreset,_SELECT", "want "},
	{"a HELLO that names no protocol changes none: invariant 8", []edit{
		{"notes.go", "			n.set.RESP3 = protocol == 3\n", "			n.set.RESP3 = protocol == 3 || MUTANT && s.state.RESP3\n"},
	}, "TestHelloWithoutArgumentsLeavesTheProtocolToTheBackend/shared", "want "},
	{"a cluster's answer to EXEC is not known to discard", []edit{
		{"backend/judge.go", "strings.HasPrefix(string(line), execRefused) || isElsewhere(line)", "strings.HasPrefix(string(line), execRefused) || isElsewhere(line) && !MUTANT"},
	}, "TestExecThatBelongsElsewhereKeepsTheLane", "want \"+OK\\r\\n+QUEUED"},
	{"what a direct write left goes out last: invariant 1", []edit{
		{"lane/write.go", "	o.copied = slices.Insert(o.copied, 0, b...)\n", "	if MUTANT { o.copied = append(o.copied, b...); return }\n	o.copied = slices.Insert(o.copied, 0, b...)\n"},
	}, "lane.TestLaneWritesWhatItWasGivenInItsOrder", "what is written differs"},
	{"a session keeps what it was before its next lane: invariant 8", []edit{
		{"notes.go", "	p.mu.Unlock()\n	s.gen.Add(1)\n", "	p.mu.Unlock()\n	if !MUTANT { s.gen.Add(1) }\n"},
	}, "TestLanesAreKeyed", "want \"$3\\r\\n3 2"},
	{"a lane is used before it is proven: invariant 4", []edit{
		{"backend/introduce.go", "		if !bytes.Equal(x.frames, want) {\n", "		if !bytes.Equal(x.frames, want) && !MUTANT {\n"},
	}, "TestLaneOpensOnlyWhenProven", "1 lanes were used"},
	{"a lane without credentials stays for ever", []edit{
		{"lane/sets.go", "!l.up.Authenticated() && now.Sub(l.opened)", "!MUTANT && !l.up.Authenticated() && now.Sub(l.opened)"},
	}, "TestLaneWithoutCredentialsEndsAfterAMinute", "state 0"},
}

// in returns the directory of the mutant's test and its name.
func (m *mutant) in() (dir, test string) {
	if dir, test, other := strings.Cut(m.test, ".Test"); other {
		return dir, "Test" + test
	}
	return ".", m.test
}

// buildMutants compiles the tests of each package that has some of these, with every mutant in it; the environment variable
// MUTANT says which one is on.
func buildMutants(t *testing.T) (bins map[string]string) {
	t.Helper()
	dir := t.TempDir()
	sources := make(map[string]string)
	for i, m := range mutants {
		for _, e := range m.edits {
			if sources[e.file] == "" {
				b, err := os.ReadFile(e.file)
				if err != nil {
					t.Fatal(err)
				}
				sources[e.file] = string(b)
				in := filepath.Dir(e.file)
				name := map[bool]string{true: "proxy", false: filepath.Base(in)}[in == "."]
				sources[filepath.Join(in, "mutant.go")] = "package " + name + "\n\nimport \"os\"\n\nvar theMutant = os.Getenv(\"MUTANT\")\n"
			}
			if n := strings.Count(sources[e.file], e.old); n != 1 {
				t.Fatalf("%s: %q is %d times in %s, and must be there once", m.name, e.old, n, e.file)
			}
			sources[e.file] = strings.Replace(sources[e.file], e.old, strings.ReplaceAll(e.new, "MUTANT", fmt.Sprintf("(theMutant == \"%d\")", i)), 1)
		}
	}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for file, text := range sources {
		original, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		overlay.Replace[original] = filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(overlay.Replace[original], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	bins = make(map[string]string)
	for _, m := range mutants {
		in, _ := m.in()
		if bins[in] != "" {
			continue
		}
		bins[in] = filepath.Join(dir, fmt.Sprintf("mutants%d.test", len(bins)))
		if out, err := exec.Command("go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", bins[in], "./"+in).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return bins
}

// Each mutant must be found by the test that is there for it, and for its reason. The same tests without mutants, which
// must pass, are those of this run.
func TestMutantsAreFound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds and runs these tests anew")
	}
	bins := buildMutants(t)
	type result struct {
		out string
		err error
	}
	results := make([]chan result, len(mutants))
	for i, m := range mutants { // most of them wait most of the time
		results[i] = make(chan result, 1)
		go func() { // ends with the process, which its time limit ends
			in, test := m.in()
			run := exec.Command(bins[in], "-test.timeout=4m", "-test.run=^"+strings.ReplaceAll(test, "/", "$/^")+"$")
			run.Env = append(os.Environ(), fmt.Sprintf("MUTANT=%d", i), "TEST_PATIENCE=10s")
			out, err := run.CombinedOutput()
			results[i] <- result{string(out), err}
		}()
	}
	for i, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			r := <-results[i]
			_, test := m.in()
			switch {
			case r.err == nil:
				t.Errorf("%s does not find it", m.test)
			case !strings.Contains(r.out, "--- FAIL: "+test), !strings.Contains(r.out, m.says), strings.Contains(r.out, "panic: "):
				t.Errorf("%s fails for another reason than %q:\n%.3000s", m.test, m.says, r.out)
			}
		})
	}
}
