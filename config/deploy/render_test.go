// Package deploy tests what lies beside it, in a module of its own: the types of Kubernetes stay out of the proxy's.
package deploy

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// The directories that "kubectl apply -k" takes.
var deployments = []string{"certificates", "proxy", "sidecar", "operator", "dragonfly-tls"}

// newObject returns an empty object of the type's own Go type, or nil. The operator's module cannot be had from the module
// proxy, so that its one object is read without a type: checkOperator checks the parts that are types of Kubernetes.
func newObject(kind meta.TypeMeta) meta.Object {
	switch kind.APIVersion + " " + kind.Kind {
	case "apps/v1 Deployment":
		return new(apps.Deployment)
	case "apps/v1 StatefulSet":
		return new(apps.StatefulSet)
	case "v1 Service":
		return new(core.Service)
	case "v1 ConfigMap":
		return new(core.ConfigMap)
	case "autoscaling/v2 HorizontalPodAutoscaler":
		return new(autoscaling.HorizontalPodAutoscaler)
	case "policy/v1 PodDisruptionBudget":
		return new(policy.PodDisruptionBudget)
	case "networking.k8s.io/v1 NetworkPolicy":
		return new(networking.NetworkPolicy)
	case "cert-manager.io/v1 Certificate":
		return new(certmanager.Certificate)
	case "cert-manager.io/v1 Issuer":
		return new(certmanager.Issuer)
	case "dragonflydb.io/v1alpha1 Dragonfly":
		return new(unstructured.Unstructured)
	}
	return nil
}

// strict decodes YAML into v, as the API server does with fieldValidation=Strict: a field that is unknown, written twice or
// in another case is an error.
func strict(text []byte, v any) error {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	faults, err := json.UnmarshalStrict(asJSON, v)
	if err != nil || len(faults) == 0 {
		return err
	}
	return faults[0]
}

func decode(t *testing.T, from string, text []byte) meta.Object {
	t.Helper()
	var kind meta.TypeMeta
	if err := yaml.Unmarshal(text, &kind); err != nil {
		t.Fatalf("%s: %v", from, err)
	}
	o := newObject(kind)
	if o == nil {
		t.Fatalf("%s: no type for %s %s", from, kind.APIVersion, kind.Kind)
	}
	if err := strict(text, o); err != nil {
		t.Fatalf("%s: %s: %v", from, kind.Kind, err)
	}
	return o
}

// render builds a directory as "kubectl kustomize" does and returns its objects.
func render(t *testing.T, dir string) (all []meta.Object) {
	t.Helper()
	set, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join("kubernetes", dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range set.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, decode(t, dir, text))
	}
	return all
}

// Kustomize passes on what it does not know, patches included, so that each file is looked at by itself as well.
func TestEveryFileIsDecodedStrictly(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("kubernetes/*/*.yaml")
	if err != nil || len(files) < 15 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue // render reads them, and knows no unknown fields
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range bytes.Split(text, []byte("\n---\n")) {
			decode(t, file, document)
		}
	}
}

func TestStrictDecodingFindsWhatIsUnknown(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"spec: {replica: 1}", "spec: {Replicas: 1}", "spec: {replicas: one}", "spec: {replicas: 1, replicas: 2}",
		"spec: {template: {spec: {containers: [{name: a, port: []}]}}}",
	} {
		if err := strict([]byte(text), new(apps.Deployment)); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}

// Each directory under kubernetes that can be applied is in the list that the other tests go through.
func TestNoDeploymentIsForgotten(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("kubernetes/*/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	listed := "images " + strings.Join(deployments, " ") + " " // images is a component: it is part of the others
	for _, file := range files {
		if name := filepath.Base(filepath.Dir(file)); !strings.Contains(" "+listed, " "+name+" ") {
			t.Errorf("%s is tested by nobody", file)
		}
	}
	if len(files) != len(strings.Fields(listed)) {
		t.Errorf("found %d directories, want %s", len(files), listed)
	}
}
