package config

import (
	"crypto/tls"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// Size is a number of bytes.
type Size int64

// Secret is text that no format verb and no encoder shows; string(s) does.
type Secret string

const hidden = "(hidden)"

func (s Secret) String() string               { return hidden }
func (s Secret) GoString() string             { return hidden }
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// badValue is what a parser says of a value. It never holds the value.
type badValue struct{ accepted, cure string }

func (b badValue) Error() string { return "accepted: " + b.accepted }

var parsers = map[reflect.Type]env.ParserFunc{
	reflect.TypeFor[time.Duration]():      func(s string) (any, error) { return parseDuration(s) },
	reflect.TypeFor[Size]():               func(s string) (any, error) { return parseSize(s) },
	reflect.TypeFor[int]():                func(s string) (any, error) { return parseCount(s) },
	reflect.TypeFor[uint16]():             func(s string) (any, error) { return parseVersion(s) },
	reflect.TypeFor[tls.ClientAuthType](): func(s string) (any, error) { return parseClientAuth(s) },
	reflect.TypeFor[[]string]():           func(s string) (any, error) { return parseList(s) },
	reflect.TypeFor[[]netip.Prefix]():     func(s string) (any, error) { return parseNetworks(s) },
	reflect.TypeFor[Backend]():            func(s string) (any, error) { return parseBackend(s) },
}

const (
	acceptedDuration = "a duration such as 500ms, 30s or 1h30m"
	acceptedSize     = "bytes, or a number with kb, mb, gb or tb (powers of 1024; kib, mib, gib, tib are the same)"
)

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	b := badValue{accepted: acceptedDuration}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		b.cure = "add the unit: ms, s, m or h"
	}
	return 0, b
}

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, badValue{accepted: "a whole number"}
	}
	return n, nil
}

func parseSize(s string) (Size, error) {
	digits := strings.TrimLeft(s, "0123456789")
	number, unit := s[:len(s)-len(digits)], strings.ToLower(strings.TrimSpace(digits))
	shift, ok := map[string]uint{
		"": 0, "b": 0,
		"kb": 10, "kib": 10, "ki": 10,
		"mb": 20, "mib": 20, "mi": 20,
		"gb": 30, "gib": 30, "gi": 30,
		"tb": 40, "tib": 40, "ti": 40,
	}[unit]
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || !ok || n > math.MaxInt64>>shift {
		return 0, badValue{accepted: acceptedSize}
	}
	return Size(n << shift), nil
}

// String is the shortest exact form that parseSize reads.
func (s Size) String() string {
	units := []string{"", "kb", "mb", "gb", "tb"}
	n, i := int64(s), 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n, i = n/1024, i+1
	}
	return fmt.Sprint(n) + units[i]
}

func parseVersion(s string) (uint16, error) {
	switch s {
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	case "1.0", "1.1":
		return 0, badValue{"1.2 or 1.3", "nothing below TLS 1.2 is served; bring the clients to 1.2"}
	}
	return 0, badValue{accepted: "1.2 or 1.3"}
}

func parseClientAuth(s string) (tls.ClientAuthType, error) {
	switch s {
	case "require":
		return tls.RequireAndVerifyClientCert, nil
	case "optional":
		return tls.VerifyClientCertIfGiven, nil
	case "none":
		return tls.NoClientCert, nil
	}
	return 0, badValue{accepted: "require, optional or none"}
}

func parseList(s string) ([]string, error) {
	list := strings.Split(s, ",")
	for i, item := range list {
		list[i] = strings.TrimSpace(item)
		if list[i] == "" {
			return nil, badValue{"a comma-separated list", "remove the empty entry"}
		}
	}
	return list, nil
}

// parseNetworks reads networks; an address alone is the network that holds nothing else.
func parseNetworks(s string) ([]netip.Prefix, error) {
	items, err := parseList(s)
	if err != nil {
		return nil, err
	}
	var networks []netip.Prefix
	for _, item := range items {
		network, err := netip.ParsePrefix(item)
		if address, alone := netip.ParseAddr(item); err != nil && alone == nil && address.Zone() == "" {
			network, err = address.Prefix(address.BitLen())
		}
		if err != nil || network.Addr().Is4In6() {
			return nil, badValue{"a comma-separated list of networks such as 10.0.0.0/8 or fd00::/8", ""}
		}
		networks = append(networks, network.Masked())
	}
	return networks, nil
}
