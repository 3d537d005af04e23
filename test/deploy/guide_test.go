// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/deucaliondb/deucalion/test/netns"
)

const guideFile = "../../docs/getting-started.md"

var shellBlock = regexp.MustCompile("(?ms)^( *)```sh\n(.*?)^ *```$")

// guide reads the shell blocks of a section of the guide, and the commands that its sentences name.
func guide(t *testing.T, section string) (blocks []string, named string) {
	t.Helper()
	text, err := os.ReadFile(guideFile)
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "\n"+section+"\n")
	require.True(t, found, section)
	if end := regexp.MustCompile(`(?m)^##+ `).FindStringIndex(rest); end != nil {
		rest = rest[:end[0]]
	}
	for _, m := range shellBlock.FindAllStringSubmatch(rest, -1) {
		indent := regexp.MustCompile("(?m)^" + m[1]) // in a list
		blocks = append(blocks, indent.ReplaceAllString(m[2], ""))
	}
	return blocks, rest
}

// checks parts the commands that only look from those that do something.
func checks(block string) (do string, look []string) {
	var lines []string
	for line := range strings.Lines(block) {
		if strings.HasPrefix(line, "curl ") {
			look = append(look, line)
		} else {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, ""), look
}

// The overlay that the guide shows changes the image of the nodes.
func TestOverlay(t *testing.T) {
	_, text := guide(t, "## Kubernetes")
	m := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(text)
	require.NotNil(t, m)
	var overlay struct {
		metav1.TypeMeta `json:",inline"`

		Namespace string                                   `json:"namespace"`
		Resources []string                                 `json:"resources"`
		Images    []struct{ Name, NewName, NewTag string } `json:"images"`
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(m[1]), &overlay))
	require.Equal(t, "Kustomization", overlay.Kind)
	require.Equal(t, []string{"path/to/deploy/kubernetes"}, overlay.Resources)
	image := named[*appsv1.StatefulSet](t, manifests(t), "").Spec.Template.Spec.Containers[0].Image
	name, _, _ := strings.Cut(image, ":")
	require.Equal(t, name, overlay.Images[0].Name)
	require.Contains(t, text, "kubectl create namespace "+overlay.Namespace+"\n", "nothing else makes it")
	require.Contains(t, text, "helm install deucalion deploy/helm --create-namespace --namespace "+overlay.Namespace+" ")
	require.Contains(t, text, "--namespace "+overlay.Namespace+" rollout status statefulset/"+named[*appsv1.StatefulSet](t, manifests(t), "").Name)
}

// TestThreeMachines does what the guide says about three machines and a balancer, word by word, each on a machine of
// its own.
func TestThreeMachines(t *testing.T) {
	if err := netns.Check(); err != nil {
		t.Skip(err)
	}
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Skip("no haproxy here; test/scripts/debian-haproxy.sh installs one")
	}
	net, err := netns.New(91, 4)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, net.Close()) })
	var hosts strings.Builder
	var all []*machine
	for i, h := range net.Hosts {
		fmt.Fprintf(&hosts, "%s node%d\n", h.Addr, i+1)
		all = append(all, startMachine(t, h))
	}
	nodes, balancer := all[:3], all[3]

	blocks, text := guide(t, "## Three machines with systemd")
	require.Len(t, blocks, 2)
	start, look := checks(blocks[1])
	require.Len(t, look, 1)
	for i, m := range all {
		m.must(t, "cat >>/etc/hosts <<END\n"+hosts.String()+"END\n")
		if m == balancer {
			continue
		}
		m.must(t, "echo 'scrape_configs: [{job_name: nodes, scrape_interval: 1s, static_configs: [{targets: [node1:9090, node2:9090, node3:9090]}]}]' >prometheus.yml")
		m.must(t, blocks[0])
		m.must(t, fmt.Sprintf("sed -i 's/--node.id=node1 /--node.id=node%d /' /etc/default/deucalion", i+1))
		m.must(t, start)
	}
	for _, m := range nodes {
		m.says(t, look[0], "is Ready")
		require.Equal(t, "deucalion\n", m.must(t, `ps -o user= -p "$(cat /run/deucalion.unit)"`))
	}

	blocks, _ = guide(t, "### The balancer")
	require.Len(t, blocks, 1)
	install, inspect := checks(blocks[0])
	balancer.must(t, install)
	for _, h := range net.Hosts[:3] {
		balancer.says(t, inspect[0], h.Addr+":9190")
	}
	query := "curl -s 'localhost:9090/api/v1/query?query=sum(up)'"
	balancer.says(t, query, `"3"`)

	for _, command := range []string{"systemctl reload deucalion", "systemctl restart deucalion"} {
		require.Contains(t, text, "`"+command+"`")
		for _, m := range nodes {
			m.must(t, command)
			require.Contains(t, balancer.must(t, query), `"status":"success"`)
			m.says(t, look[0], "is Ready")
		}
	}
	balancer.says(t, query, `"3"`)
}
