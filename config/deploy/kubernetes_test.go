package deploy

import (
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

const (
	dragontls     = "dragontls"
	unprivileged  = int64(65532) // the user and the group of the image
	drainTimeout  = 25 * time.Second
	expiryWarning = 720 * time.Hour
)

// eachSet runs f for every directory.
func eachSet(t *testing.T, f func(t *testing.T, s *set)) {
	t.Parallel()
	for _, dir := range deployments {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			f(t, newSet(t, dir))
		})
	}
}

func TestSelectorsAndPortsMatchPods(t *testing.T) {
	eachSet(t, func(t *testing.T, s *set) {
		for _, p := range s.pods {
			if p.selector != nil && len(s.matching(t, p.selector)) != 1 {
				t.Errorf("the selector of %s does not find its own pods alone", p.name)
			}
			for _, c := range p.spec.TopologySpreadConstraints {
				if len(s.matching(t, c.LabelSelector)) != 1 {
					t.Errorf("%s: spread over %s does not count its own pods alone", p.name, c.TopologyKey)
				}
			}
		}
		for _, o := range s.objects {
			switch o := o.(type) {
			case *core.Service:
				s.checkService(t, o)
			case *policy.PodDisruptionBudget:
				if len(s.matching(t, o.Spec.Selector)) != 1 {
					t.Errorf("budget %s finds no pods", o.Name)
				}
			case *networking.NetworkPolicy:
				s.checkPolicy(t, o)
			case *autoscaling.HorizontalPodAutoscaler:
				s.checkScaling(t, o)
			case *unstructured.Unstructured:
				s.checkOperator(t, o)
			}
		}
	})
}

func (s *set) checkService(t *testing.T, o *core.Service) {
	found := s.matching(t, &meta.LabelSelector{MatchLabels: o.Spec.Selector})
	for _, p := range o.Spec.Ports {
		if len(found) != 1 || !has(found, p.TargetPort.IntVal, p.TargetPort.StrVal) {
			t.Errorf("service %s: port %s leads to %d pods, or to a port that they do not have", o.Name, p.Name, len(found))
		}
	}
}

func (s *set) checkPolicy(t *testing.T, o *networking.NetworkPolicy) {
	targets := s.matching(t, &o.Spec.PodSelector)
	for _, rule := range o.Spec.Ingress {
		s.checkPeers(t, o.Name, rule.From)
		for _, port := range rule.Ports {
			if !has(targets, port.Port.IntVal, port.Port.StrVal) {
				t.Errorf("policy %s: no pod has port %s", o.Name, port.Port)
			}
		}
	}
	for _, rule := range o.Spec.Egress {
		for _, peer := range s.checkPeers(t, o.Name, rule.To) {
			for _, port := range rule.Ports {
				if !has([]pod{peer}, port.Port.IntVal, port.Port.StrVal) {
					t.Errorf("policy %s: %s has no port %s", o.Name, peer.name, port.Port)
				}
			}
		}
	}
	if o.Name != "dragonfly" {
		return
	}
	// Only dragontls, Dragonfly itself and the operator.
	for _, rule := range o.Spec.Ingress {
		if len(rule.From) == 0 {
			t.Error("policy dragonfly: everybody reaches Dragonfly")
		}
		for _, peer := range rule.From {
			operator := peer.NamespaceSelector != nil && peer.NamespaceSelector.MatchLabels[core.LabelMetadataName] == "dragonfly-operator-system"
			if peer.IPBlock != nil || peer.PodSelector == nil && !operator || peer.PodSelector != nil && peer.PodSelector.Size() == 0 {
				t.Errorf("policy dragonfly: %s reaches Dragonfly", peer.String())
			}
		}
	}
}

// checkPeers returns the pods of this namespace that a rule names.
func (s *set) checkPeers(t *testing.T, name string, peers []networking.NetworkPolicyPeer) (found []pod) {
	for _, peer := range peers {
		if peer.PodSelector == nil || peer.NamespaceSelector != nil {
			continue
		}
		matching := s.matching(t, peer.PodSelector)
		if len(matching) == 0 {
			t.Errorf("policy %s: %s finds no pod", name, peer.PodSelector)
		}
		found = append(found, matching...)
	}
	return found
}

func (s *set) checkScaling(t *testing.T, o *autoscaling.HorizontalPodAutoscaler) {
	for _, other := range s.objects {
		d, ok := other.(*apps.Deployment)
		if !ok || d.Name != o.Spec.ScaleTargetRef.Name || o.Spec.ScaleTargetRef.Kind != "Deployment" {
			continue
		}
		if d.Spec.Replicas != nil {
			t.Error("every apply of the Deployment would undo what the autoscaler did")
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			if c.Resources.Requests.Cpu().IsZero() {
				t.Errorf("container %s requests no CPU, of which the autoscaler computes its share", c.Name)
			}
		}
		if *o.Spec.MinReplicas < 2 {
			t.Error("one pod is not enough for the disruption budget")
		}
		return
	}
	t.Errorf("%s scales nothing", o.Name)
}

// checkOperator decodes the parts of the operator's object that are types of Kubernetes.
func (s *set) checkOperator(t *testing.T, o *unstructured.Unstructured) {
	if !s.services[o.GetName()] {
		t.Errorf("nothing expects the Service %s, which the operator makes", o.GetName())
	}
	part := func(v any, fields ...string) {
		t.Helper()
		value, found, err := unstructured.NestedMap(o.Object, fields...)
		if err != nil || !found {
			t.Fatalf("%v: %v", fields, err)
		}
		text, err := yaml.Marshal(value)
		if err == nil {
			err = strict(text, v)
		}
		if err != nil {
			t.Errorf("%v: %v", fields, err)
		}
	}
	var secret core.SecretKeySelector
	part(&secret, "spec", "authentication", "passwordFromSecret")
	part(new(core.ResourceRequirements), "spec", "resources")
	if !s.secrets[secret.Name][secret.Key] {
		t.Errorf("nothing makes the Secret %s with %s", secret.Name, secret.Key)
	}
}

func TestCertificatesHaveAnIssuerAndAreRenewedBeforeTheWarning(t *testing.T) {
	eachSet(t, func(t *testing.T, s *set) {
		issuers, seen := map[string]bool{}, 0
		for _, o := range s.objects {
			if i, ok := o.(*certmanager.Issuer); ok {
				issuers[i.Name] = true
			}
		}
		for _, o := range s.objects {
			c, ok := o.(*certmanager.Certificate)
			if !ok {
				continue
			}
			seen++
			if !issuers[c.Spec.IssuerRef.Name] {
				t.Errorf("%s: no issuer %s", c.Name, c.Spec.IssuerRef.Name)
			}
			if c.Spec.IsCA {
				continue
			}
			warning := min(expiryWarning, c.Spec.Duration.Duration/3)
			if c.Spec.RenewBefore == nil || c.Spec.RenewBefore.Duration <= warning {
				t.Errorf("%s is renewed after dragontls has begun to warn, %s before its end", c.Name, warning)
			}
			if c.Spec.PrivateKey.RotationPolicy != certmanager.RotationPolicyAlways {
				t.Errorf("%s keeps its key for ever", c.Name)
			}
		}
		if seen == 0 {
			t.Error("no certificate")
		}
	})
}

var literalSecret = regexp.MustCompile(`(?i)password|requirepass|token|secret|auth`)

// Nothing that is secret stands in a manifest: it is a file of a Secret, or a variable that comes from one.
func TestNoSecretIsInTheClear(t *testing.T) {
	eachSet(t, func(t *testing.T, s *set) {
		for _, p := range s.pods {
			for _, c := range p.containers() {
				for _, e := range c.Env {
					if literalSecret.MatchString(e.Name) && !strings.HasSuffix(e.Name, "_FILE") && e.ValueFrom == nil {
						t.Errorf("%s: %s is in the clear", c.Name, e.Name)
					}
					if e.ValueFrom != nil && !s.secrets[e.ValueFrom.SecretKeyRef.Name][e.ValueFrom.SecretKeyRef.Key] {
						t.Errorf("%s: nothing makes the Secret of %s", c.Name, e.Name)
					}
					if u, err := url.Parse(e.Value); strings.HasSuffix(e.Name, "_URL") && (err != nil || u.User != nil) {
						t.Errorf("%s: %s has a password in it (%v)", c.Name, e.Name, err)
					}
				}
				if args := strings.Join(append(c.Command, c.Args...), " "); strings.Contains(args, "requirepass") || strings.Contains(args, " -a ") {
					t.Errorf("%s: a password among the arguments", c.Name)
				}
			}
		}
	})
}

func TestImagesAreTheSameEverywhere(t *testing.T) {
	t.Parallel()
	compose := regexp.MustCompile(`\$\{DRAGONFLY_IMAGE:-([^}]+)\}`).FindStringSubmatch(read(t, "../../docker-compose.yml"))
	if compose == nil {
		t.Fatal("docker-compose.yml names no image of Dragonfly")
	}
	images := map[string]string{"dragonfly": compose[1]}
	same := func(kind, image string) {
		if images[kind] == "" {
			images[kind] = image
		}
		if image != images[kind] || !strings.Contains(path.Base(image), ":") || strings.HasSuffix(image, ":latest") {
			t.Errorf("%s is the image %s, and elsewhere %s", kind, image, images[kind])
		}
	}
	for _, dir := range deployments {
		s := newSet(t, dir)
		for _, p := range s.pods {
			for _, c := range p.containers() {
				if c.Name == dragontls {
					same(dragontls, c.Image)
				} else {
					same("dragonfly", c.Image)
				}
			}
		}
		for _, o := range s.objects {
			if o, ok := o.(*unstructured.Unstructured); ok {
				image, _, _ := unstructured.NestedString(o.Object, "spec", "image")
				same("dragonfly", image)
			}
		}
	}
	if len(images) != 2 {
		t.Errorf("images: %v", images)
	}
}

// portOf resolves the port of a probe.
func portOf(c core.Container, port intstr.IntOrString) bool {
	for _, p := range c.Ports {
		if port.Type == intstr.String && p.Name == port.StrVal || port.Type == intstr.Int && p.ContainerPort == port.IntVal {
			return true
		}
	}
	return false
}
