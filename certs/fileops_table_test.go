//go:build unix

package certs

import (
	"os"
	"path/filepath"
	"time"

	"dragontls/certs/pki"
)

func inPlace(o *observed, first pemPair) { o.writePair("server", first) }

func use(f *fixture, cert, key string) {
	f.opts.CertFiles, f.opts.KeyFiles = []string{f.path(cert)}, []string{f.path(key)}
}

// relink makes name a symlink to target by rename, as ln -sfn and the kubelet do.
func relink(f *fixture, target, name string) {
	f.t.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.must(os.Symlink(target, f.path(name+".new")))
	f.must(os.Rename(f.path(name+".new"), f.path(name)))
}

// hardLink makes name another name of the file target by rename.
func hardLink(f *fixture, target, name string) {
	f.t.Helper()
	f.must(os.Link(f.path(target), f.path(name+".new")))
	f.must(os.Rename(f.path(name+".new"), f.path(name)))
}

// kubelet writes a new version of a mounted secret and swaps ..data to it.
func kubelet(f *fixture, version string, p pemPair) {
	f.t.Helper()
	f.write("k/"+version+"/tls.crt", p.cert)
	f.write("k/"+version+"/tls.key", p.key)
	relink(f, version, "k/..data")
}

// renameBoth leaves a moment with a key that does not match.
func renameBoth(o *observed, p pemPair) {
	o.t.Helper()
	o.rename("server.key", p.key)
	o.rename("server.crt", p.cert)
	o.served(p)
}

// writeBoth also leaves moments with an empty file.
func writeBoth(o *observed, p pemPair) {
	o.t.Helper()
	o.writePair("server", p)
	o.served(p)
}

func hardLinked(o *observed, first pemPair) {
	o.writePair("store/1", first)
	hardLink(o.fixture, "store/1.crt", "server.crt")
	hardLink(o.fixture, "store/1.key", "server.key")
}

func archived(o *observed, version string, p pemPair) {
	o.write("archive/x/cert"+version+".pem", p.cert)
	o.write("archive/x/key"+version+".pem", p.key)
	relink(o.fixture, "../../archive/x/cert"+version+".pem", "live/x/cert.pem")
	relink(o.fixture, "../../archive/x/key"+version+".pem", "live/x/key.pem")
}

var (
	apart   = []string{ReasonMismatch}
	torn    = []string{ReasonMismatch, ReasonParse}
	missing = []string{ReasonMismatch, ReasonParse, ReasonUnreadable}
)

var fileOperations = []fileOperation{
	{name: "overwrite in place", prepare: inPlace, change: writeBoth, passing: torn},
	{name: "rename over", prepare: inPlace, change: renameBoth, passing: apart},
	{name: "chmod only", prepare: inPlace, change: func(o *observed, _ pemPair) {
		o.unchanged(func() { o.must(os.Chmod(o.path("server.crt"), 0o644)) })
		o.unchanged(func() { o.must(os.Chmod(o.path("server.key"), 0o400)) })
		o.must(os.Chmod(o.path("server.key"), 0o600))
	}},
	{name: "certbot live links", passing: apart, prepare: func(o *observed, first pemPair) {
		archived(o, "1", first)
		use(o.fixture, "live/x/cert.pem", "live/x/key.pem")
	}, change: func(o *observed, next pemPair) {
		archived(o, "2", next)
		o.served(next)
	}},
	// What is linked to lies where nobody watches: only the link that moves makes an event.
	{name: "links to links to files, each replaced", passing: torn, prepare: func(o *observed, first pemPair) {
		o.writePair("far/1/server", first)
		for _, name := range []string{"server.key", "server.crt"} {
			relink(o.fixture, o.path("far/1/"+name), "b/"+name)
			relink(o.fixture, "../b/"+name, "c/"+name)
		}
		use(o.fixture, "c/server.crt", "c/server.key")
	}, change: func(o *observed, next pemPair) {
		o.writePair("far/1/server", next)
		o.served(next)
		next = o.pair()
		o.writePair("far/2/server", next)
		relink(o.fixture, "../far/2/server.key", "b/server.key")
		relink(o.fixture, "../far/2/server.crt", "b/server.crt")
		o.served(next)
		next = o.pair()
		o.writePair("far/3/server", next)
		relink(o.fixture, "../far/3/server.key", "c/server.key")
		relink(o.fixture, "../far/3/server.crt", "c/server.crt")
		o.served(next)
	}},
	{name: "kubernetes swap, twice", prepare: func(o *observed, first pemPair) {
		kubelet(o.fixture, "..1", first)
		relink(o.fixture, "..data/tls.crt", "k/tls.crt")
		relink(o.fixture, "..data/tls.key", "k/tls.key")
		use(o.fixture, "k/tls.crt", "k/tls.key")
	}, change: func(o *observed, next pemPair) {
		kubelet(o.fixture, "..2", next)
		o.must(os.RemoveAll(o.path("k/..1")))
		o.served(next)
		next = o.pair()
		kubelet(o.fixture, "..3", next)
		o.must(os.RemoveAll(o.path("k/..2")))
		o.served(next)
	}},
	{name: "linked directory swapped", prepare: func(o *observed, first pemPair) {
		o.writePair("far/v/1/server", first)
		relink(o.fixture, "v/1", "far/current")
		use(o.fixture, "far/current/server.crt", "far/current/server.key")
	}, change: func(o *observed, next pemPair) {
		o.writePair("far/v/2/server", next)
		relink(o.fixture, "v/2", "far/current")
		o.served(next)
	}},
	{name: "hard link replaced", prepare: hardLinked, passing: apart, change: func(o *observed, next pemPair) {
		o.writePair("store/2", next)
		hardLink(o.fixture, "store/2.key", "server.key")
		hardLink(o.fixture, "store/2.crt", "server.crt")
		o.served(next)
	}},
	{name: "hard link written by its other name", prepare: hardLinked, passing: torn, pollOnly: true, change: func(o *observed, next pemPair) {
		o.writePair("store/1", next)
		o.served(next)
	}},
	{name: "key first", prepare: inPlace, change: func(o *observed, next pemPair) {
		o.rename("server.key", next.key)
		o.refused(ReasonMismatch)
		o.rename("server.crt", next.cert)
		o.served(next)
	}},
	{name: "certificate first", prepare: inPlace, change: func(o *observed, next pemPair) {
		o.rename("server.crt", next.cert)
		o.refused(ReasonMismatch)
		o.rename("server.key", next.key)
		o.served(next)
	}},
	{name: "a key of another certificate", prepare: inPlace, change: func(o *observed, next pemPair) {
		o.rename("server.key", o.pair().key)
		o.refused(ReasonMismatch)
		renameBoth(o, next)
	}},
	{name: "an expired certificate", prepare: inPlace, passing: apart, change: func(o *observed, next pemPair) {
		now := time.Now()
		old := o.issue(o.ca, pki.Leaf{CN: "server", DNS: []string{"localhost"}, Server: true,
			NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)})
		o.rename("server.key", old.key)
		o.rename("server.crt", old.cert)
		o.refused(ReasonExpired)
		renameBoth(o, next)
	}},
	{name: "half written", prepare: inPlace, passing: torn, change: func(o *observed, next pemPair) {
		o.write("server.crt", next.cert[:len(next.cert)/2])
		o.refused(ReasonParse)
		o.write("server.key", next.key)
		o.append("server.crt", next.cert[len(next.cert)/2:])
		o.served(next)
	}},
	{name: "truncated, then written", prepare: inPlace, passing: torn, change: func(o *observed, next pemPair) {
		o.must(os.Truncate(o.path("server.crt"), 0))
		o.refused(ReasonParse)
		o.append("server.crt", next.cert)
		o.refused(ReasonMismatch)
		o.must(os.Truncate(o.path("server.key"), 0))
		o.append("server.key", next.key)
		o.served(next)
	}},
	{name: "deleted and made again", prepare: inPlace, passing: missing, change: func(o *observed, next pemPair) {
		o.must(os.Remove(o.path("server.crt")))
		o.must(os.Remove(o.path("server.key")))
		o.refused(ReasonUnreadable)
		writeBoth(o, next)
	}},
	{name: "a directory in place of the file", prepare: inPlace, passing: missing, change: func(o *observed, next pemPair) {
		o.must(os.Remove(o.path("server.crt")))
		o.must(os.Mkdir(o.path("server.crt"), 0o755))
		o.refused(ReasonUnreadable)
		o.must(os.Remove(o.path("server.crt")))
		writeBoth(o, next)
	}},
	{name: "moved out and back", prepare: inPlace, change: func(o *observed, _ pemPair) {
		o.must(os.Rename(o.path("server.crt"), o.path("away")))
		o.refused(ReasonUnreadable)
		o.unchanged(func() { o.must(os.Rename(o.path("away"), o.path("server.crt"))) })
		o.wantHealed()
	}},
	{name: "unreadable for a while", prepare: inPlace, unprivileged: true, change: func(o *observed, _ pemPair) {
		o.must(os.Chmod(o.path("server.key"), 0))
		o.refused(ReasonUnreadable)
		o.unchanged(func() { o.must(os.Chmod(o.path("server.key"), 0o600)) })
		o.wantHealed()
	}},
	{name: "directory removed and made again", passing: missing, prepare: func(o *observed, first pemPair) {
		o.writePair("x/y/server", first)
		use(o.fixture, "x/y/server.crt", "x/y/server.key")
	}, change: func(o *observed, next pemPair) {
		o.must(os.RemoveAll(o.path("x")))
		o.refused(ReasonUnreadable)
		o.writePair("x/y/server", next)
		o.served(next)
	}},
	{name: "another directory moved in", passing: missing, prepare: func(o *observed, first pemPair) {
		o.writePair("x/server", first)
		use(o.fixture, "x/server.crt", "x/server.key")
	}, change: func(o *observed, next pemPair) {
		o.writePair("y/server", next)
		o.must(os.Rename(o.path("x"), o.path("z")))
		o.must(os.Rename(o.path("y"), o.path("x")))
		o.served(next)
	}},
}

// wantHealed: it is said once that the fault is gone.
func (o *observed) wantHealed() {
	o.t.Helper()
	if got := o.log.count("hold what is in use"); got != 1 {
		o.t.Errorf("said %d times that the files are good again, want once", got)
	}
}

// append writes more to a file that stays the same.
func (o *observed) append(name string, data []byte) {
	o.t.Helper()
	file, err := os.OpenFile(o.path(name), os.O_APPEND|os.O_WRONLY, 0)
	o.must(err)
	_, err = file.Write(data)
	o.must(err)
	o.must(file.Close())
}
