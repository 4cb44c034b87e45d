package certs

import (
	"errors"
	"time"

	"dragontls/certs/reload"
)

// Examine reads the files that o names and returns what is wrong with them, each a *Fault. Unlike Open it takes options
// that are not complete, of which some variables have been refused already: what is missing is no fault here, and whatever
// cannot be judged without it is not judged.
func Examine(o Options) error {
	o.clock = time.Now
	paired := min(len(o.CertFiles), len(o.KeyFiles))
	chains, keys := o.CertFiles[paired:], o.KeyFiles[paired:] // that have no counterpart
	contents := reload.Read(o.paths())
	o.CertFiles, o.KeyFiles = o.CertFiles[:paired], o.KeyFiles[:paired]
	var all, ofFiles faults
	_, err := parseSnapshot(&o, contents, randomMaster(), o.clock())
	all.add(err)
	for _, file := range chains {
		_, err := readChain(contents, file)
		all.add(err)
	}
	for _, file := range keys {
		_, err := readKey(contents, file)
		all.add(err)
	}
	for _, err := range all {
		if f, ok := errors.AsType[*Fault](err); ok && f.File != "" {
			ofFiles.add(f)
		}
	}
	return ofFiles.join()
}
