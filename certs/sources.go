package certs

import (
	"crypto/x509"
	"slices"
	"time"

	"dragontls/certs/identity"
	"dragontls/certs/reload"

	"github.com/rs/zerolog"
)

// sources are all that a Store reads. Each keeps its own last good content, so that a bad file holds back only itself.
// One reload at a time uses them. Those that are not configured are nil.
type sources struct {
	pairs   []*kept[*pair]
	clients *kept[*bundle]
	crl     *keptCRL
	allow   *kept[[]identity.Pattern]
	users   *kept[*identity.Users]
	tickets *kept[[]byte]
	ocsp    *kept[[]byte] // a response in DER

	narrowed bool // of the reload that runs: the bundle is held back, but what it takes away is not trusted
}

// The messages of the log about the sources.
const (
	pairReloaded, pairRefused       = "certificates reloaded", "reload refused, the last good certificates stay"
	bundleReloaded                  = "CA certificates reloaded"
	crlReloaded, crlRefused         = "CRL reloaded", "reload refused, the last good CRL stays"
	allowReloaded, allowRefused     = "allow file reloaded", "reload refused, the last good patterns stay"
	usersReloaded, usersRefused     = "users file reloaded", "reload refused, the last good users stay"
	ticketsReloaded, ticketsRefused = "ticket keys reloaded", "reload refused, the last good ticket keys stay"
	ocspReloaded, ocspRefused       = "OCSP response reloaded", "reload refused, the last good OCSP response stays"
)

func newSources(o *Options) *sources {
	s := &sources{}
	for i, file := range o.CertFiles {
		s.pairs = append(s.pairs, newPairSource("pair", file, o.KeyFiles[i], o.KeyPasswordFile, "server", x509.ExtKeyUsageServerAuth, o.clock))
	}
	if o.ClientCAFile != "" {
		s.clients = newBundleSource(RoleClientCA, o.ClientCAFile, o.clock)
	}
	if o.CRLFile != "" {
		s.crl = newCRLSource(o.CRLFile)
	}
	if file := o.Login.AllowFile; file != "" {
		s.allow = newSource("allow", file, allowReloaded, allowRefused, parseAllowFile)
	}
	if file := o.Login.UsersFile; file != "" {
		s.users = newSource("users", file, usersReloaded, usersRefused, func(c reload.Contents, _ string) (*identity.Users, error) {
			return parseUsers(c, &o.Login)
		})
	}
	if file := o.TicketKeysFile; file != "" {
		s.tickets = newSource("ticket_keys", file, ticketsReloaded, ticketsRefused, parseMaster)
	}
	if file := o.ocspFile(); file != "" {
		s.ocsp = newSource("ocsp", file, ocspReloaded, ocspRefused, parseFiledResponse)
	}
	return s
}

func newSource[T any](name, file, reloaded, refused string, parse func(reload.Contents, string) (T, error)) *kept[T] {
	return &kept[T]{
		Source: reload.Source{Name: name, Files: []string{file}, Reloaded: reloaded, Refused: refused},
		parse: func(c reload.Contents) (T, time.Time, error) {
			value, err := parse(c, file)
			return value, time.Time{}, err
		},
	}
}

func newPairSource(name, certFile, keyFile, passwordFile, role string, usage x509.ExtKeyUsage, clock func() time.Time) *kept[*pair] {
	files := []string{certFile, keyFile}
	if passwordFile != "" {
		files = append(files, passwordFile)
	}
	return &kept[*pair]{
		Source: reload.Source{Name: name, Files: files, Reloaded: pairReloaded, Refused: pairRefused},
		parse: func(c reload.Contents) (*pair, time.Time, error) {
			p, err := parsePair(c, pairFiles{certFile, keyFile, passwordFile}, role, usage, clock())
			var ends time.Time
			if err == nil {
				ends = p.tls.Leaf.NotAfter
			} else if chain, _ := readChain(c, certFile); len(chain) > 0 {
				ends = chain[0].NotAfter
			}
			return p, ends, err
		},
	}
}

func newBundleSource(role, file string, clock func() time.Time) *kept[*bundle] {
	return newSource(role, file, bundleReloaded, pairRefused, func(c reload.Contents, file string) (*bundle, error) {
		return parseBundle(c, file, role, clock())
	})
}

// files are all that the sources read.
func (s *sources) files() []string {
	var all []string
	for _, p := range s.pairs {
		all = append(all, p.Files...)
	}
	for _, source := range []*reload.Source{sourceOf(s.clients), s.crl.source(), sourceOf(s.allow), sourceOf(s.users), sourceOf(s.tickets), sourceOf(s.ocsp)} {
		if source != nil {
			all = append(all, source.Files...)
		}
	}
	return all
}

func sourceOf[T any](k *kept[T]) *reload.Source {
	if k == nil {
		return nil
	}
	return &k.Source
}

// each calls f with every source that is configured, in the order in which their faults are reported.
func (s *sources) each(f func(step)) {
	for _, p := range s.pairs {
		f(p)
	}
	if s.clients != nil {
		f(s.clients)
	}
	if s.crl != nil {
		f(s.crl)
	}
	if s.allow != nil {
		f(s.allow)
	}
	if s.users != nil {
		f(s.users)
	}
	if s.tickets != nil {
		f(s.tickets)
	}
	if s.ocsp != nil {
		f(s.ocsp)
	}
}

// step is what every source does in a reload, whatever it holds.
type step interface {
	read(reload.Contents)
	settle()
	held() []Held
	isFresh() bool
}

func (s *sources) read(c reload.Contents) {
	s.narrowed = false
	s.each(func(one step) { one.read(c) })
}

func (s *sources) settle() { s.each(step.settle) }

func (s *sources) held() []Held {
	var all []Held
	s.each(func(one step) { all = append(all, one.held()...) })
	return all
}

// fresh reports whether the content of any source is to be taken into use.
func (s *sources) fresh() bool {
	fresh := false
	s.each(func(one step) { fresh = fresh || one.isFresh() })
	return fresh
}

// changes describes what became of the sources when next follows last; nil: it is the first.
func (s *sources) changes(next, last *Snapshot) []reload.Change {
	var all []reload.Change
	add := func(source *reload.Source, describe func(*zerolog.Event)) {
		all = append(all, reload.Change{Source: source, Describe: func(e *zerolog.Event) {
			describe(e.Str("file", source.Files[0]))
			e.Uint64("generation", next.Generation).Bool("trust_changed", last != nil && next.Trust != last.Trust)
		}})
	}
	for i, p := range s.pairs {
		if p.fresh {
			leaf := next.pairs[i].info[0]
			add(&p.Source, func(e *zerolog.Event) {
				e.Str("serial", leaf.Serial).Time("not_after", leaf.NotAfter).Int("pairs", len(next.pairs))
			})
		}
	}
	if k := s.clients; k != nil && (k.fresh || last != nil && next.clients != last.clients) {
		add(&k.Source, func(e *zerolog.Event) { e.Int("cas", len(next.clients.certs)).Bool("in_part", s.narrowed) })
	}
	if k := s.crl; k != nil && (k.fresh || last != nil && next.revocation != last.revocation && (k.err != nil || next.clients == last.clients)) {
		inPart := k.err != nil
		add(&k.Source, func(e *zerolog.Event) {
			e.Int("crls", len(next.CRLs)).Int("entries", entriesOf(next.CRLs)).Bool("in_part", inPart)
		})
	}
	if k := s.allow; k != nil && k.fresh {
		patterns := len(k.next)
		add(&k.Source, func(e *zerolog.Event) { e.Int("patterns", patterns) })
	}
	if k := s.users; k != nil && k.fresh {
		add(&k.Source, func(e *zerolog.Event) { e.Int("rules", len(next.login.users.Rules())) })
	}
	if k := s.tickets; k != nil && k.fresh {
		add(&k.Source, func(*zerolog.Event) {})
	}
	if k := s.ocsp; k != nil && k.fresh {
		add(&k.Source, func(*zerolog.Event) {})
	}
	return all
}

func entriesOf(crls []CRL) int {
	n := 0
	for _, c := range crls {
		n += c.Entries
	}
	return n
}

// patterns are those of the variable and of the file; nil: every certificate may connect.
func (s *sources) patterns(o *Login) []identity.Pattern {
	all := slices.Clone(o.Allow)
	if s.allow != nil {
		all = append(all, s.allow.next...)
	}
	return all
}
