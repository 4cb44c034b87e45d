package deploy

import (
	"os"
	"regexp"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// pod is a pod template, or what stands for pods that somebody else makes.
type pod struct {
	name     string
	labels   map[string]string
	ports    map[int32]string // number and name
	spec     core.PodSpec
	claims   []core.PersistentVolumeClaim
	selector *meta.LabelSelector
}

// set is all that one directory makes, with what it expects to be there.
type set struct {
	dir      string
	objects  []meta.Object
	pods     []pod
	services map[string]bool
	secrets  map[string]map[string]bool // the files of each Secret that something makes
}

func newSet(t *testing.T, dir string) *set {
	t.Helper()
	s := &set{dir: dir, objects: render(t, dir), services: map[string]bool{}, secrets: secretsOfTheManual(t)}
	for _, o := range s.objects {
		switch o := o.(type) {
		case *apps.Deployment:
			s.addPod(o.Name, o.Spec.Template, nil, o.Spec.Selector)
		case *apps.StatefulSet:
			s.addPod(o.Name, o.Spec.Template, o.Spec.VolumeClaimTemplates, o.Spec.Selector)
		case *core.Service:
			s.services[o.Name] = true
		case *certmanager.Certificate:
			if s.secrets[o.Spec.SecretName] != nil {
				t.Errorf("%s: two sources of the Secret %s", dir, o.Spec.SecretName)
			}
			s.secrets[o.Spec.SecretName] = map[string]bool{"tls.crt": true, "tls.key": true, "ca.crt": true}
		}
	}
	// A Dragonfly of somebody else's, and the operator's: labels and ports as its releases of 2026 make them.
	switch dir {
	case "proxy":
		s.addOther(pod{name: "dragonfly", labels: map[string]string{"app.kubernetes.io/name": "dragonfly"}, ports: map[int32]string{6379: ""}})
	case "operator":
		s.addOther(pod{name: "dragonfly", ports: map[int32]string{6379: "redis", 9999: "admin"},
			labels: map[string]string{"app": "dragonfly", "app.kubernetes.io/name": "dragonfly", "app.kubernetes.io/part-of": "dragonfly", "role": "master"}})
	}
	return s
}

func (s *set) addPod(name string, template core.PodTemplateSpec, claims []core.PersistentVolumeClaim, selector *meta.LabelSelector) {
	p := pod{name: name, labels: template.Labels, spec: template.Spec, claims: claims, selector: selector, ports: map[int32]string{}}
	for _, c := range p.containers() {
		for _, port := range c.Ports {
			p.ports[port.ContainerPort] = port.Name
		}
	}
	s.pods = append(s.pods, p)
}

func (s *set) addOther(p pod) {
	s.pods = append(s.pods, p)
	s.services[p.name] = true
}

func (p *pod) containers() []core.Container {
	return append(append([]core.Container(nil), p.spec.InitContainers...), p.spec.Containers...)
}

// matching returns the pods that a selector finds.
func (s *set) matching(t *testing.T, selector *meta.LabelSelector) (found []pod) {
	t.Helper()
	by, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.pods {
		if by.Matches(labels.Set(p.labels)) {
			found = append(found, p)
		}
	}
	return found
}

// has reports whether every one of the pods has a port of this number or name.
func has(pods []pod, number int32, name string) bool {
	for _, p := range pods {
		found := false
		for n, s := range p.ports {
			found = found || number != 0 && n == number || name != "" && s == name
		}
		if !found {
			return false
		}
	}
	return len(pods) > 0
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var createSecret = regexp.MustCompile(`create secret generic ([\w-]+) --from-file=([\w.-]+)=`)

// secretsOfTheManual returns the Secrets that the manual has the reader create.
func secretsOfTheManual(t *testing.T) map[string]map[string]bool {
	t.Helper()
	found := map[string]map[string]bool{}
	for _, m := range createSecret.FindAllStringSubmatch(read(t, "../docs/kubernetes.md"), -1) {
		found[m[1]] = map[string]bool{m[2]: true}
	}
	if len(found) == 0 {
		t.Fatal("the manual creates no Secret")
	}
	return found
}

var settingsRow = regexp.MustCompile("(?m)^\\| (`DRAGONTLS_[^|]*) \\|")

// settings returns the variables of the proxy.
func settings(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, row := range settingsRow.FindAllStringSubmatch(read(t, "../docs/settings.md"), -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			found[strings.Trim(name, "` ")] = true
		}
	}
	if len(found) < 40 {
		t.Fatalf("found %d settings, there are more", len(found))
	}
	return found
}
