package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
)

type outcome struct {
	code           int
	stdout, stderr string
}

func invoke(env []string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	code := run(args, program{env, &stdout, &stderr})
	return outcome{code, stdout.String(), stderr.String()}
}

func TestHelpGoesToStdoutAndExitsZero(t *testing.T) {
	for _, args := range []string{"help", "-h", "--help", "serve --help", "serve -h", "pki --help", "pki -h", "pki help", "pki init --help", "pki client -h", "pki revoke -h", "probe --help", "probe a:1 -h", "healthcheck --help", "version --help"} {
		got := invoke(nil, strings.Fields(args)...)
		if got.code != exitOK || !strings.HasPrefix(got.stdout, "usage: dragontls") || got.stderr != "" {
			t.Errorf("%s: got %+v", args, got)
		}
	}
}

func TestMisuseExitsTwoWithUsage(t *testing.T) {
	for args, want := range map[string]string{
		"frobnicate":                                 `unknown command "frobnicate"`,
		"--frobnicate":                               `unknown command "--frobnicate"`,
		"serve now":                                  `unknown argument "now"`,
		"version 2":                                  `unknown argument "2"`,
		"healthcheck --url x":                        `unknown argument "--url"`,
		"pki":                                        "what to do is missing",
		"pki --dir x":                                "what to do is missing",
		"pki burn":                                   `unknown action "burn"`,
		"pki client":                                 "the name is missing",
		"pki client a b":                             `unknown argument "b"`,
		"pki init x":                                 `unknown argument "x"`,
		"pki init --nope":                            "nope",
		"pki init --dir=":                            "--dir is empty",
		"pki init --days x":                          "days",
		"pki init --days 0":                          "want 1 to 398",
		"pki rotate --days 399":                      "want 1 to 398",
		"pki init --key-mode 0644":                   "want 0600",
		"pki init --key-mode rw":                     "want 0600",
		"pki show --host x":                          "host",
		"pki client bob --days 1":                    "days",
		"pki rotate --if-missing":                    "if-missing",
		"pki rotate --owner-from .":                  "owner-from",
		"pki revoke":                                 "the name is missing",
		"pki revoke a b":                             `unknown argument "b"`,
		"pki revoke a --serial 1":                    `unknown argument "a"`,
		"pki revoke --renew a":                       `unknown argument "a"`,
		"pki revoke --serial xyz":                    "want hexadecimal digits",
		"pki revoke --serial -1":                     "want hexadecimal digits",
		"pki revoke --serial=":                       "--serial is empty",
		"pki show --renew":                           "renew",
		"pki --renew revoke --serial 1f":             "one of them",
		"probe":                                      "HOST:PORT is missing",
		"probe a:1 b:2":                              `unknown argument "b:2"`,
		"probe localhost":                            "want HOST:PORT",
		"probe :6380":                                "want HOST:PORT",
		"probe a:0":                                  "want HOST:PORT",
		"probe a:65536":                              "want HOST:PORT",
		"probe rediss://a:6380":                      "want HOST:PORT",
		"probe a:1 --cert x":                         "want both or neither",
		"probe a:1 --username bob":                   "want --password-file too",
		"probe a:1 --timeout 0s":                     "want more than zero",
		"probe a:1 --timeout soon":                   "timeout",
		"probe a:1 --servername=":                    "--servername is empty",
		"probe a:1 --ca /no/where":                   "no such file",
		"probe a:1 --ca /dev/null":                   "no PEM certificate",
		"probe a:1 --cert /dev/null --key /dev/null": "PEM",
		"probe a:1 --password-file /dev/null":        "it is empty",
		"probe a:1 --frobnicate":                     "frobnicate",
		"pki --if-missing --dir x y":                 `unknown action "y"`,
	} {
		got := invoke(nil, strings.Fields(args)...)
		if got.code != exitConfig || !strings.Contains(got.stderr, want) || !strings.Contains(got.stderr, "usage: dragontls") || got.stdout != "" {
			t.Errorf("%s: got %+v, want %q", args, got, want)
		}
	}
}

func TestServeIsTheDefault(t *testing.T) {
	for _, args := range [][]string{nil, {"serve"}} {
		got := invoke([]string{"DRAGONTLS_LISTEN=x", "DRAGONTLS_NO_SUCH=1"}, args...)
		if got.code != exitConfig || !strings.Contains(got.stderr, "DRAGONTLS_LISTEN") || !strings.Contains(got.stderr, "DRAGONTLS_NO_SUCH") {
			t.Errorf("%q: got %+v, want all faults", args, got)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, name := range []string{"version", "--version"} {
		got := invoke(nil, name)
		if got.code != exitOK || !strings.HasPrefix(got.stdout, "dragontls "+buildVersion()+"\n") ||
			!strings.Contains(got.stdout, runtime.Version()) || !strings.Contains(got.stdout, "\nrevision ") {
			t.Errorf("got %+v", got)
		}
	}
	version, revision = "v9.9.9", "0a1b2c" // as the linker does
	defer func() { version, revision = "", "" }()
	if got := invoke(nil, "version"); !strings.HasPrefix(got.stdout, "dragontls v9.9.9\n") || !strings.HasSuffix(got.stdout, "\nrevision 0a1b2c\n") {
		t.Errorf("got %+v", got)
	}
}
