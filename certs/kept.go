package certs

import (
	"time"

	"dragontls/certs/reload"
)

// Held is a source of files that is held back: what it held before stays in use.
type Held = reload.Held

// kept is a source with what it held last that was good. One reload at a time uses it.
type kept[T any] struct {
	reload.Source
	// parse reads and verifies the source alone. ends is the end of validity of what the files hold, if
	// that is known even where they have a fault.
	parse func(reload.Contents) (value T, ends time.Time, err error)

	good   T
	sum    [32]byte // of the content that good was made of
	loaded bool     // there is a good

	// What the reload that runs found.
	next    T
	nextSum [32]byte
	fresh   bool // next is another content than good, and may be taken into use
	ends    time.Time
	err     error
}

// read looks at what the files hold now. Content that is in use already is not judged again: that a
// certificate has aged since it was read is no fault of a reload.
func (k *kept[T]) read(c reload.Contents) {
	k.next, k.nextSum, k.fresh, k.ends, k.err = k.good, c.Sum(k.Files...), false, time.Time{}, nil
	if k.loaded && k.nextSum == k.sum {
		return
	}
	value, ends, err := k.parse(c)
	if err != nil {
		k.ends, k.err = ends, err
		return
	}
	k.next, k.ends, k.fresh = value, ends, true
}

// hold keeps the last good content in use because of what others hold.
func (k *kept[T]) hold(err error) { k.next, k.fresh, k.err = k.good, false, err }

// settle ends the reload: what was taken into use is the last good content from now on.
func (k *kept[T]) settle() {
	if k.fresh {
		k.good, k.sum, k.loaded = k.next, k.nextSum, true
	}
	var none T
	k.next, k.err = none, nil
}

// held returns the source as it is held back, if it is.
func (k *kept[T]) held() []Held {
	if k == nil || k.err == nil {
		return nil
	}
	return []Held{{Source: &k.Source, Err: k.err, Ends: k.ends}}
}

func (k *kept[T]) isFresh() bool { return k.fresh }
