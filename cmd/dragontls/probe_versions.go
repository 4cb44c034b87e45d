package main

import (
	"crypto/tls"
	"fmt"
	"slices"
)

// alertProtocolVersion is the one alert that proves a version refused (RFC 8446, 6.2). Any other may be about the
// cipher suites: crypto/tls knows none with DHE, which is all that some old server has.
const alertProtocolVersion = 70

// probeVersion is what came of offering one version of TLS alone.
type probeVersion struct {
	Version     string `json:"version"`
	Accepted    bool   `json:"accepted"`
	Ended       string `json:"ended,omitempty"` // how the handshake ended, if it did not go well
	CipherSuite string `json:"cipher_suite,omitempty"`
	KeyExchange string `json:"key_exchange,omitempty"`
}

// checkVersions offers each version alone. A server that answers with it accepts it, whatever it thinks of the client.
func (p *prober) checkVersions() {
	p.offered = map[uint16]bool{}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		r := p.try(probeAttempt{version: version, certificate: p.certificate})
		v := probeVersion{Version: tls.VersionName(version), Accepted: r.state.Version == version}
		if r.err != nil {
			v.Ended = p.describe(r.err)
		}
		if v.Accepted {
			p.offered[version] = true
			v.CipherSuite = tls.CipherSuiteName(r.state.CipherSuite)
			if r.state.CurveID != 0 {
				v.KeyExchange = r.state.CurveID.String()
			}
		}
		p.report.Versions = append(p.report.Versions, v)
		p.judgeVersion(version, v, r)
	}
	if !p.offered[tls.VersionTLS12] && !p.offered[tls.VersionTLS13] {
		p.report.fail("TLS 1.2 or 1.3", "neither is accepted", "set the endpoint's versions to 1.2 and 1.3")
	}
}

func (p *prober) judgeVersion(version uint16, v probeVersion, r probeResult) {
	old := version < tls.VersionTLS12
	how := v.CipherSuite
	if v.KeyExchange != "" {
		how += ", " + v.KeyExchange
	}
	switch {
	case v.Accepted && old:
		p.report.fail(v.Version, "accepted: "+how, "set the endpoint's oldest version to 1.2: RFC 8996 forbids this one")
	case v.Accepted && isInsecureSuite(r.state.CipherSuite):
		p.report.fail(v.Version, "accepted, with a broken cipher suite: "+how, "take it out of the endpoint's cipher suites")
	case v.Accepted:
		p.report.ok(v.Version, "accepted: "+how)
	case !isRefusal(r.err) && old:
		p.report.fail(v.Version, fmt.Sprintf("neither accepted nor refused: %s", v.Ended), "look at what stands between; a server refuses with an alert")
	case old && alertCode(r.err) == alertProtocolVersion:
		p.report.ok(v.Version, "refused: "+v.Ended)
	case old:
		p.report.info(v.Version, "refused, perhaps for another reason than its version: "+v.Ended)
	default:
		p.report.info(v.Version, "not accepted: "+v.Ended)
	}
}

func isInsecureSuite(id uint16) bool {
	return slices.ContainsFunc(tls.InsecureCipherSuites(), func(s *tls.CipherSuite) bool { return s.ID == id })
}
