package deploy

import (
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPodsHaveWhatTheyMount(t *testing.T) {
	eachSet(t, func(t *testing.T, s *set) {
		for _, p := range s.pods {
			volumes, mounted := map[string]bool{}, map[string]bool{}
			for _, v := range p.spec.Volumes {
				volumes[v.Name] = true
				s.checkVolume(t, p, v)
			}
			for _, c := range p.claims {
				volumes[c.Name] = true
			}
			for _, c := range p.containers() {
				for _, m := range c.VolumeMounts {
					mounted[m.Name] = true
					if !volumes[m.Name] {
						t.Errorf("%s/%s mounts %s, which does not exist", p.name, c.Name, m.Name)
					}
					if m.SubPath != "" || m.SubPathExpr != "" {
						t.Errorf("%s/%s: %s is mounted with subPath: its rotation is never seen", p.name, c.Name, m.Name)
					}
				}
			}
			for name := range volumes {
				if !mounted[name] {
					t.Errorf("%s: nobody mounts %s", p.name, name)
				}
			}
		}
	})
}

func (s *set) checkVolume(t *testing.T, p pod, v core.Volume) {
	switch {
	case v.Secret != nil:
		if s.secrets[v.Secret.SecretName] == nil {
			t.Errorf("%s: nothing makes the Secret %s", p.name, v.Secret.SecretName)
		}
		if v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440 {
			t.Errorf("%s: the Secret %s is readable by others than its group", p.name, v.Secret.SecretName)
		}
		if p.spec.SecurityContext.FSGroup == nil {
			t.Errorf("%s: without fsGroup nobody but root reads %s", p.name, v.Secret.SecretName)
		}
	case v.ConfigMap != nil:
		found := slices.ContainsFunc(s.objects, func(o meta.Object) bool {
			c, ok := o.(*core.ConfigMap)
			return ok && c.Name == v.ConfigMap.Name
		})
		if !found {
			t.Errorf("%s: no ConfigMap %s", p.name, v.ConfigMap.Name)
		}
	case v.EmptyDir == nil:
		t.Errorf("%s: volume %s is of a kind that is not expected here", p.name, v.Name)
	}
}

func TestPodsMayDoNothingButServe(t *testing.T) {
	eachSet(t, func(t *testing.T, s *set) {
		for _, p := range s.pods {
			if p.selector == nil {
				continue // somebody else's
			}
			c := p.spec.SecurityContext
			if c == nil || c.RunAsNonRoot == nil || !*c.RunAsNonRoot || c.SeccompProfile == nil || c.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s: root, or no seccomp profile", p.name)
			}
			if a := p.spec.AutomountServiceAccountToken; a == nil || *a {
				t.Errorf("%s: it gets a token for the API, which it does not need", p.name)
			}
			// A Service "dragontls" gives each pod DRAGONTLS_PORT and more.
			if e := p.spec.EnableServiceLinks; e == nil || *e {
				t.Errorf("%s: variables of Services get into its environment", p.name)
			}
			for _, c := range p.containers() {
				checkContainer(t, p, c)
			}
		}
	})
}

func checkContainer(t *testing.T, p pod, c core.Container) {
	t.Helper()
	sc := c.SecurityContext
	if sc == nil || sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation || sc.Capabilities == nil ||
		!slices.Equal(sc.Capabilities.Drop, []core.Capability{"ALL"}) || len(sc.Capabilities.Add) > 0 || sc.Privileged != nil {
		t.Errorf("%s/%s: it has capabilities, or may get some", p.name, c.Name)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("%s/%s: no requests, or no limit of memory", p.name, c.Name)
	}
	for _, probe := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if probe == nil {
			continue
		}
		if h := probe.HTTPGet; h != nil && !portOf(c, h.Port) || probe.TCPSocket != nil && !portOf(c, probe.TCPSocket.Port) {
			t.Errorf("%s/%s: a probe asks a port that it does not have", p.name, c.Name)
		}
	}
	if c.Name != dragontls {
		return
	}
	if sc == nil || sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem {
		t.Errorf("%s/%s: its root file system is writable", p.name, c.Name)
	}
	if g := p.spec.SecurityContext.FSGroup; g == nil || *g != unprivileged {
		t.Errorf("%s: fsGroup is not the image's group, %d", p.name, unprivileged)
	}
	if c.LivenessProbe == nil || c.LivenessProbe.HTTPGet.Path != "/livez" || c.ReadinessProbe == nil || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Errorf("%s/%s: its probes are not /livez and /readyz", p.name, c.Name)
	}
}

func TestVariablesAreSettingsAndTheirFilesExist(t *testing.T) {
	known := settings(t)
	eachSet(t, func(t *testing.T, s *set) {
		for _, p := range s.pods {
			for _, c := range p.containers() {
				env := map[string]string{}
				for _, e := range c.Env {
					if strings.HasPrefix(e.Name, "DRAGONTLS_") && !known[e.Name] {
						t.Errorf("%s/%s: dragontls has no setting %s", p.name, c.Name, e.Name)
					}
					if _, twice := env[e.Name]; twice {
						t.Errorf("%s/%s: %s is set twice", p.name, c.Name, e.Name)
					}
					env[e.Name] = e.Value
					if strings.HasPrefix(e.Name, "DRAGONTLS_") && strings.HasSuffix(e.Name, "_FILE") && !s.fileExists(p, c, e.Value) {
						t.Errorf("%s/%s: nothing makes the file %s of %s", p.name, c.Name, e.Value, e.Name)
					}
				}
				if c.Name == dragontls {
					s.checkProxy(t, p, env)
				}
			}
		}
	})
}

// fileExists reports whether file lies in a directory that the container mounts from a Secret with such a file.
func (s *set) fileExists(p pod, c core.Container, file string) bool {
	for _, m := range c.VolumeMounts {
		for _, v := range p.spec.Volumes {
			if v.Name == m.Name && v.Secret != nil && m.MountPath == path.Dir(file) {
				return s.secrets[v.Secret.SecretName][path.Base(file)]
			}
		}
	}
	return false
}

func (s *set) checkProxy(t *testing.T, p pod, env map[string]string) {
	delay, err := time.ParseDuration(env["DRAGONTLS_DRAIN_DELAY"])
	if grace := p.spec.TerminationGracePeriodSeconds; err != nil || delay == 0 || grace == nil || time.Duration(*grace)*time.Second < delay+drainTimeout+5*time.Second {
		t.Errorf("%s is killed before DRAIN_DELAY (%v) and DRAIN_TIMEOUT are over", p.name, err)
	}
	if env["DRAGONTLS_ADMIN_LISTEN"] != ":9380" || p.ports[9380] != "admin" || p.ports[6380] != "redis-tls" || env["DRAGONTLS_ADMIN_TOKEN_FILE"] == "" {
		t.Errorf("%s: its ports are not those of its container, or metrics have no token", p.name)
	}
	backend, err := url.Parse(env["DRAGONTLS_BACKEND_URL"])
	if err != nil {
		t.Fatal(err)
	}
	switch backend.Scheme {
	case "unix":
		s.checkSocket(t, p, backend.Path)
	case "redis", "rediss":
		if !s.services[backend.Hostname()] {
			t.Errorf("%s: no Service %s", p.name, backend.Hostname())
		}
	}
	if backend.Scheme != "rediss" {
		return
	}
	named := slices.ContainsFunc(s.objects, func(o meta.Object) bool {
		c, ok := o.(*certmanager.Certificate)
		return ok && c.Name != "dragontls-server" && slices.Contains(c.Spec.DNSNames, backend.Hostname())
	})
	if !named || env["DRAGONTLS_BACKEND_CA_FILE"] == "" {
		t.Errorf("%s: no certificate of the backend bears the name %s, or none of the system's CAs has signed it", p.name, backend.Hostname())
	}
}

// checkSocket finds the container that listens on the socket, and the volume that both mount.
func (s *set) checkSocket(t *testing.T, p pod, socket string) {
	volume := map[string]string{}
	for _, c := range p.containers() {
		for _, m := range c.VolumeMounts {
			if m.MountPath == path.Dir(socket) {
				volume[c.Name] = m.Name
			}
		}
		if c.Name == dragontls {
			continue
		}
		if !slices.Contains(c.Args, "--unixsocket="+socket) || !slices.Contains(c.Args, "--unixsocketperm=770") || !slices.Contains(c.Args, "--bind=127.0.0.1") {
			t.Errorf("%s does not listen on %s alone, or its group may not connect", c.Name, socket)
		}
	}
	if volume[dragontls] == "" || volume[dragontls] != volume["dragonfly"] {
		t.Errorf("the two containers have no directory of %s in common: %v", socket, volume)
	}
}
