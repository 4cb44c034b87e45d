package certs

import (
	"crypto/x509"
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
	o.CertFiles, o.KeyFiles = o.CertFiles[:paired], o.KeyFiles[:paired]
	s := newSources(&o)
	contents := reload.Read(append(append(s.files(), chains...), keys...))
	s.read(contents)
	s.composeTrust(&Snapshot{LoadedAt: o.clock(), opts: &o}, nil)
	var all, ofFiles faults
	for _, h := range s.held() {
		all.add(h.Err)
	}
	for _, file := range chains {
		chain, err := readChain(contents, file)
		if err == nil {
			err = checkLeaf(file, chain, x509.ExtKeyUsageServerAuth, o.clock())
		}
		all.add(err)
	}
	for _, file := range keys {
		_, err := readKey(contents, pairFiles{key: file, password: o.KeyPasswordFile})
		all.add(err)
	}
	for _, err := range all {
		if f, ok := errors.AsType[*Fault](err); ok && f.File != "" {
			ofFiles.add(f)
		}
	}
	return ofFiles.join()
}
