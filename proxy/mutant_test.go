//go:build !mutants

package proxy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What finds each mutant: a test, and what it says then.
var foundBy = map[mutant]struct{ test, says string }{
	mutantDropToken:          {"TestOnlyWhoHasTheTokenWrites", "want "},
	mutantPanicKeepsLane:     {"TestPanicOnALaneTakesWhoIsOnItAlong/of_a_session_that_writes", "it does not end"},
	mutantWriterPanic:        {"TestPanicOnALaneTakesWhoIsOnItAlong/of_its_writer", "it does not end"},
	mutantReaderPanic:        {"TestPanicOnALaneTakesWhoIsOnItAlong/of_its_reader", "where the end should come"},
	mutantPopTwice:           {"TestClientThatVanishesFromALaneDisturbsNobody/FIN", "want "},
	mutantKeepDeparted:       {"TestClientThatVanishesFromALaneDisturbsNobody/RST", "want "},
	mutantNoNonceCheck:       {"TestLaneWhoseRepliesMayBeOutOfPlaceTakesWhoIsOnItAlong/a_wrong_nonce", "where the end should come"},
	mutantNonceInTransaction: {"TestTransactionOnALaneIsWrittenWithoutGaps", "a nonce inside a transaction"},
	mutantNoBarrier:          {"TestSessionChangesItsConnectionWhenNothingIsOwed", "before the reply"},
	mutantExpireQuiet:        {"TestLineBreakKeepsACommandFromLanes", "rode a lane"},
	mutantQueuedHello:        {"TestWhatPinsASessionToItsOwnConnection/HELLO_inside_a_transaction", "pinned: false, want true"},
	mutantResetKeepsUser:     {"TestResetOfASharedSessionHasAFreshConnection", "behind RESET on its connection"},
	mutantAnyExecError:       {"TestExecThatIsNeitherRunNorDiscardedEndsItsLane/an_error", "where the end should come"},
}

// Each mutant must be found by the test that is there for it, and for its reason. The same tests without mutants, which
// must pass, are those of this run.
func TestMutantsAreFound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds and runs these tests anew")
	}
	bin := filepath.Join(t.TempDir(), "mutants.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "mutants", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	type result struct {
		out string
		err error
	}
	results := make(map[mutant]chan result)
	for m, found := range foundBy { // most of them wait most of the time
		done := make(chan result, 1)
		results[m] = done
		go func() { // ends with the process, which its time limit ends
			run := exec.Command(bin, "-test.timeout=50s", "-test.run=^"+strings.ReplaceAll(found.test, "/", "$/^")+"$")
			run.Env = append(os.Environ(), fmt.Sprintf("MUTANT=%d", m), "TEST_PATIENCE=10s")
			out, err := run.CombinedOutput()
			done <- result{string(out), err}
		}()
	}
	for m := mutantNone + 1; m < mutants; m++ {
		t.Run(fmt.Sprint(m), func(t *testing.T) {
			found, ok := foundBy[m]
			if !ok {
				t.Fatal("no test finds it")
			}
			r := <-results[m]
			switch {
			case r.err == nil:
				t.Errorf("%s does not find it", found.test)
			case !strings.Contains(r.out, "--- FAIL: "+found.test), !strings.Contains(r.out, found.says), strings.Contains(r.out, "panic: "):
				t.Errorf("%s fails for another reason than %q:\n%.3000s", found.test, found.says, r.out)
			}
		})
	}
}
