package proxy

// mutant is a fault that the tests must find. Built with the tag mutants, a binary has the one that the environment
// names; otherwise none, at no cost.
type mutant uint8

const (
	mutantNone               mutant = iota
	mutantDropToken                 // the write token is dropped between unlock and write
	mutantPanicKeepsLane            // a panic of a session that holds the token does not close the lane
	mutantWriterPanic               // nor does one of the lane's writer
	mutantReaderPanic               // a panic of the lane's reader ends its connection like any loss
	mutantPopTwice                  // a slot is popped twice
	mutantKeepDeparted              // the slot of a session that has ended is not popped
	mutantNoNonceCheck              // whatever comes in a nonce's place is taken for it
	mutantNonceInTransaction        // a nonce goes between MULTI and EXEC
	mutantNoBarrier                 // a session changes its connection while replies are owed
	mutantExpireQuiet               // EXPIRE rides a lane whatever its arguments
	mutantQueuedHello               // a HELLO inside MULTI changes nothing
	mutantResetKeepsUser            // RESET without a new AUTH
	mutantAnyExecError              // any error to EXEC leaves its lane open
	mutants
)
