// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/kubernetes" // kubernetes_sd_configs in the configuration
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

const kubernetesDir = "../../deploy/kubernetes"

// newObject makes an object of the type that a manifest says it is of.
func newObject(m metav1.TypeMeta) (metav1.Object, error) {
	switch m.APIVersion + " " + m.Kind {
	case "v1 ConfigMap":
		return new(corev1.ConfigMap), nil
	case "v1 Service":
		return new(corev1.Service), nil
	case "v1 ServiceAccount":
		return new(corev1.ServiceAccount), nil
	case "apps/v1 StatefulSet":
		return new(appsv1.StatefulSet), nil
	case "policy/v1 PodDisruptionBudget":
		return new(policyv1.PodDisruptionBudget), nil
	case "networking.k8s.io/v1 NetworkPolicy":
		return new(networkingv1.NetworkPolicy), nil
	case "rbac.authorization.k8s.io/v1 Role":
		return new(rbacv1.Role), nil
	case "rbac.authorization.k8s.io/v1 RoleBinding":
		return new(rbacv1.RoleBinding), nil
	}
	return nil, fmt.Errorf("no type for %s %s", m.APIVersion, m.Kind)
}

// decode reads manifests as an API server with strict validation does: a field that it does not know is an error.
func decode(text []byte) ([]metav1.Object, error) {
	var out []metav1.Object
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		var m metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &m); err != nil {
			return nil, err
		}
		o, err := newObject(m)
		if err != nil {
			return nil, err
		}
		if err := yaml.UnmarshalStrict(doc, o); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Kind, err)
		}
		out = append(out, o)
	}
	return out, nil
}

// manifests reads all files that the kustomization names, and insists that it names all.
func manifests(t *testing.T) []metav1.Object {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(kubernetesDir, "kustomization.yaml"))
	require.NoError(t, err)
	var k struct {
		metav1.TypeMeta `json:",inline"`

		Labels    []struct{ Pairs map[string]string } `json:"labels"`
		Resources []string                            `json:"resources"`
		Images    []struct{ Name, NewTag string }     `json:"images"`
	}
	require.NoError(t, yaml.UnmarshalStrict(text, &k))
	entries, err := os.ReadDir(kubernetesDir)
	require.NoError(t, err)
	require.Len(t, entries, len(k.Resources)+1, "the kustomization names every file beside it")
	var out []metav1.Object
	for _, name := range k.Resources {
		text, err := os.ReadFile(filepath.Join(kubernetesDir, name))
		require.NoError(t, err)
		objects, err := decode(text)
		require.NoError(t, err, name)
		out = append(out, objects...)
	}
	return out
}

// named finds the object of a type by its name; "" takes any.
func named[T metav1.Object](t *testing.T, all []metav1.Object, name string) T {
	t.Helper()
	for _, o := range all {
		if x, ok := o.(T); ok && (name == "" || o.GetName() == name) {
			return x
		}
	}
	var none T
	require.Fail(t, "missing", "%T %q", none, name)
	return none
}

// The nodes find each other before they are ready, and have names that last.
func TestKubernetesNodes(t *testing.T) {
	all := manifests(t)
	set := named[*appsv1.StatefulSet](t, all, "")
	require.EqualValues(t, 3, *set.Spec.Replicas)
	require.Equal(t, appsv1.ParallelPodManagement, set.Spec.PodManagementPolicy, "the first start needs all nodes at once")
	nodes := named[*corev1.Service](t, all, set.Spec.ServiceName)
	require.Equal(t, corev1.ClusterIPNone, nodes.Spec.ClusterIP)
	require.True(t, nodes.Spec.PublishNotReadyAddresses)
	clients := named[*corev1.Service](t, all, "deucalion")
	require.False(t, clients.Spec.PublishNotReadyAddresses)

	pod := set.Spec.Template
	c := pod.Spec.Containers[0]
	require.Contains(t, c.Args, "--node.id=$(POD_NAME)")
	require.Contains(t, c.Args, "--cluster.advertise-address=[$(POD_IP)]:9190", "also an IPv6 address")
	require.Contains(t, c.Args, "--cluster.gossip-advertise-address=[$(POD_IP)]:9191")
	require.Contains(t, c.Args, "--cluster.peer="+nodes.Name+":9191")
	require.Contains(t, c.Args, fmt.Sprintf("--cluster.bootstrap-expect=%d", *set.Spec.Replicas))
	require.Equal(t, "/-/ready", c.ReadinessProbe.HTTPGet.Path)
	require.Equal(t, "/-/healthy", c.LivenessProbe.HTTPGet.Path)
	require.Equal(t, "/-/healthy", c.StartupProbe.HTTPGet.Path)
	require.GreaterOrEqual(t, c.StartupProbe.PeriodSeconds*c.StartupProbe.FailureThreshold, int32(3600), "a start may read all data")
	require.NotNil(t, c.Lifecycle)
	require.NotNil(t, c.Lifecycle.PreStop.Sleep, "clients come until the endpoints have changed; the image has no shell")
	wait := c.Lifecycle.PreStop.Sleep.Seconds
	require.GreaterOrEqual(t, wait, int64(c.ReadinessProbe.PeriodSeconds*c.ReadinessProbe.FailureThreshold))
	require.GreaterOrEqual(t, *pod.Spec.TerminationGracePeriodSeconds, wait+100, "a graceful stop takes up to 90 s")
	require.True(t, *pod.Spec.SecurityContext.RunAsNonRoot)
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.Equal(t, set.Spec.VolumeClaimTemplates[0].Name, c.VolumeMounts[0].Name)
	require.Equal(t, "kubernetes.io/hostname", pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].TopologyKey)
}

// Everything is about the same pods, and every port that is named is one of theirs.
func TestKubernetesReferences(t *testing.T) {
	all := manifests(t)
	pod := named[*appsv1.StatefulSet](t, all, "").Spec.Template
	ports := map[string]corev1.ContainerPort{}
	for _, p := range pod.Spec.Containers[0].Ports {
		ports[p.Name] = p
	}
	matches := func(s *metav1.LabelSelector) {
		selector, err := metav1.LabelSelectorAsSelector(s)
		require.NoError(t, err)
		require.True(t, selector.Matches(labels.Set(pod.Labels)))
		require.False(t, selector.Empty())
	}
	for _, o := range all {
		switch o := o.(type) {
		case *corev1.Service:
			matches(&metav1.LabelSelector{MatchLabels: o.Spec.Selector})
			for _, p := range o.Spec.Ports {
				require.Equal(t, ports[p.TargetPort.StrVal].ContainerPort, p.Port, "%s of %s", p.Name, o.Name)
			}
		case *appsv1.StatefulSet:
			matches(o.Spec.Selector)
			matches(o.Spec.Template.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector)
		case *policyv1.PodDisruptionBudget:
			matches(o.Spec.Selector)
			require.EqualValues(t, 1, o.Spec.MaxUnavailable.IntVal)
		case *rbacv1.RoleBinding:
			named[*rbacv1.Role](t, all, o.RoleRef.Name)
			require.Equal(t, pod.Spec.ServiceAccountName, o.Subjects[0].Name)
		case *networkingv1.NetworkPolicy:
			matches(&o.Spec.PodSelector)
			for _, rule := range o.Spec.Ingress {
				for _, p := range rule.Ports {
					require.Contains(t, ports, p.Port.StrVal)
					require.Equal(t, p.Port.StrVal == "http", len(rule.From) == 0, "%s: all but HTTP is for the pods alone", p.Port.StrVal)
				}
			}
		}
	}
}

// The configuration loads, and its switch is that of deploy/prometheus.
func TestKubernetesConfig(t *testing.T) {
	data := named[*corev1.ConfigMap](t, manifests(t), "deucalion").Data
	dir := t.TempDir()
	for name, text := range data {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	c, err := config.LoadFile(filepath.Join(dir, "prometheus.yml"), false, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "rules.yml")}, c.RuleFiles)
	require.Equal(t, readRules(t, switchFile)[0].Expr, readRules(t, filepath.Join(dir, "rules.yml"))[0].Expr)
}

// A mistake in a manifest is found.
func TestDecodeIsStrict(t *testing.T) {
	for _, text := range []string{
		"apiVersion: v1\nkind: Service\nspec: {publishNotReadyAdresses: true}",
		"apiVersion: v1\nkind: Service\nspec: {ports: 1}",
		"apiVersion: v2\nkind: Service",
		"apiVersion: v1\nkind: Service\nkind: Service",
	} {
		_, err := decode([]byte(text))
		require.Error(t, err, text)
	}
}

// What kubectl makes of the directory is as strict.
func TestKustomize(t *testing.T) {
	tool, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("no kubectl here")
	}
	cmd := exec.CommandContext(t.Context(), tool, "kustomize", kubernetesDir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", stderr.String())
	objects, err := decode(out)
	require.NoError(t, err)
	require.Len(t, objects, len(manifests(t)))
	set := named[*appsv1.StatefulSet](t, objects, "")
	require.True(t, strings.HasPrefix(set.Spec.Template.Spec.Containers[0].Image, "deucalion:"))
	require.True(t, slices.ContainsFunc(objects, func(o metav1.Object) bool { return o.GetLabels()["app.kubernetes.io/name"] == "deucalion" }))
}
