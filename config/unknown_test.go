package config

import (
	"strings"
	"testing"
)

func TestUnknownVariablesAreFaults(t *testing.T) {
	for _, test := range []struct{ pair, cure string }{
		{"LISTEM=:1", "did you mean DRAGONTLS_LISTEN?"},
		{"TLS_CRET_FILE=x", "did you mean DRAGONTLS_TLS_CERT_FILE?"},
		{"MAX_CONECTIONS=1", "did you mean DRAGONTLS_MAX_CONNECTIONS?"},
		{"LISTEN_PORTX=1", "remove it"},
		{"LISTEN_PORT=6380", "remove it"},
		{"SERVICE_HOST=listen", "remove it"},
		{"SERVICE_PORTX=1", "remove it"},
		{"PORT_X=tcp://10.0.0.1:1", "remove it"},
		{"PORT_6380_TCP_PORTX=6380", "remove it"},
		{"SESSIONS_BUFFERED=1", "remove it"},
		{"PEOPLE_FILE=x", "remove it"},
		{"=x", "remove it"},
	} {
		faults := faultsOf(t, test.pair)
		if len(faults) != 1 || !strings.Contains(faults.Error(), test.cure) || !faults[0].Hidden {
			t.Errorf("%s: got\n%v\nwant one fault with %q and no value", test.pair, faults, test.cure)
		}
	}
}

func TestKubernetesServiceVariablesAreNoFaults(t *testing.T) {
	mustLoad(t,
		"SERVICE_HOST=10.0.0.1", "SERVICE_PORT=6380", "SERVICE_PORT_RESP=6380", "PORT=tcp://10.0.0.1:6380",
		"PORT_6380_TCP=tcp://10.0.0.1:6380", "PORT_6380_TCP_PROTO=tcp", "PORT_6380_TCP_PORT=6380", "PORT_6380_TCP_ADDR=fd00::1",
		"ADMIN_SERVICE_HOST=10.0.0.2", "ADMIN_PORT=tcp://10.0.0.2:9380", "ADMIN_PORT_9380_UDP_PROTO=udp")
}
