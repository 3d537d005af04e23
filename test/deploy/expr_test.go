// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package deploy_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

const (
	dashboardFile = "../../deploy/grafana/deucalion.json"
	alertsFile    = "../../deploy/prometheus/alerts.yml"
	switchFile    = "../../deploy/prometheus/dead-mans-switch.yml"
)

// expression is a PromQL expression of a file.
type expression struct {
	where string // for messages
	text  string // variables of Grafana replaced
}

// dashboard is what the tests need of Grafana's model.
type dashboard struct {
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []panel `json:"panels"`
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
		} `json:"list"`
	} `json:"templating"`
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct {
		Defaults struct {
			Unit     string
			Mappings []any
		}
	}
	Targets []struct{ Expr, LegendFormat string }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(dashboardFile))
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

var (
	variables   = strings.NewReplacer("$__rate_interval", "2m", `"$job"`, `".*"`, `"$instance"`, `".*"`)
	labelValues = regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
)

// panelExpressions are those that draw something.
func (d dashboard) panelExpressions() (out []expression) {
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			out = append(out, expression{fmt.Sprintf("panel %q", p.Title), variables.Replace(target.Expr)})
		}
	}
	return out
}

// variableExpressions are those that fill the variables, as queries that name their label.
func (d dashboard) variableExpressions(t *testing.T) (out []expression) {
	t.Helper()
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		q, _ := v.Query.(map[string]any)["query"].(string)
		m := labelValues.FindStringSubmatch(q)
		require.NotNil(t, m, "variable %s: %q", v.Name, q)
		out = append(out, expression{"variable " + v.Name, fmt.Sprintf("count by (%s) (%s)", m[2], variables.Replace(m[1]))})
	}
	return out
}

func newParser() parser.Parser { return parser.NewParser(parser.Options{}) }

func readAlerts(t *testing.T) []rulefmt.Rule {
	t.Helper()
	return readRules(t, alertsFile)
}

func readRules(t *testing.T, file string) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(filepath.FromSlash(file), false, model.UTF8Validation, newParser(), slog.New(slog.DiscardHandler))
	require.Empty(t, errs)
	var out []rulefmt.Rule
	for _, g := range groups.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

// metricNames gives the metrics that an expression selects, with the labels that it matches them by.
func metricNames(text string) (map[string][]string, error) {
	expr, err := newParser().ParseExpr(text)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		v, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		if out[v.Name] == nil {
			out[v.Name] = []string{}
		}
		for _, m := range v.LabelMatchers {
			if m.Name != model.MetricNameLabel {
				out[v.Name] = append(out[v.Name], m.Name)
			}
		}
		return nil
	})
	return out, nil
}

// known are the label names of each metric that the nodes have.
type known map[string]map[string]bool

func (k known) add(ls labels.Labels) {
	name := ls.Get(model.MetricNameLabel)
	if k[name] == nil {
		k[name] = map[string]bool{}
	}
	ls.Range(func(l labels.Label) { k[name][l.Name] = true })
}

// check tells what of an expression the nodes do not have.
func (k known) check(text string) error {
	selected, err := metricNames(text)
	if err != nil {
		return err
	}
	for name, matched := range selected {
		if k[name] == nil {
			return fmt.Errorf("no metric %s", name)
		}
		for _, l := range matched {
			if !k[name][l] {
				return fmt.Errorf("%s has no label %s", name, l)
			}
		}
	}
	return nil
}

func TestCheckFindsMistakes(t *testing.T) {
	k := known{}
	k.add(labels.FromStrings(model.MetricNameLabel, "deucalion_raft_is_leader", "job", "x"))
	require.NoError(t, k.check(`sum by (job) (deucalion_raft_is_leader{job="x"}) == 0`))
	require.ErrorContains(t, k.check(`sum(deucalion_raft_is_leeder)`), "no metric deucalion_raft_is_leeder")
	require.ErrorContains(t, k.check(`rate(deucalion_raft_is_leader{jobs="x"}[5m])`), "has no label jobs")
	require.ErrorContains(t, k.check(`sum(deucalion_raft_is_leader`), "parse error")
}

// The dashboard must be usable: everything named, described and with a unit, nothing twice, nothing on top of another.
func TestDashboardIsComplete(t *testing.T) {
	d := readDashboard(t)
	require.GreaterOrEqual(t, d.SchemaVersion, 39)
	ids, titles, places, exprs := map[int]bool{}, map[string]bool{}, map[[2]int]string{}, map[string]string{}
	rows := 0
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], "id of %q", p.Title)
		require.False(t, titles[p.Title], "title %q", p.Title)
		ids[p.ID], titles[p.Title] = true, true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, places[[2]int{x, y}], "%q is on top of it", p.Title)
				places[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows++
			continue
		}
		require.NotEmpty(t, p.Description, p.Title)
		require.True(t, p.FieldConfig.Defaults.Unit != "" || len(p.FieldConfig.Defaults.Mappings) > 0, "unit of %q", p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		for _, q := range p.Targets {
			require.NotEmpty(t, q.LegendFormat, p.Title)
			require.Empty(t, exprs[q.Expr], "%q shows the same", p.Title)
			exprs[q.Expr] = p.Title
			require.NotContains(t, variables.Replace(q.Expr), "$", p.Title)
		}
	}
	require.GreaterOrEqual(t, rows, 7)
}

// An alert must say what to do.
func TestAlertsAreComplete(t *testing.T) {
	names := map[string]bool{}
	for _, r := range readAlerts(t) {
		require.NotEmpty(t, r.Alert)
		require.False(t, names[r.Alert], r.Alert)
		names[r.Alert] = true
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.Greater(t, len(r.Annotations["description"]), 80, r.Alert)
	}
	require.NotEmpty(t, names)
}

// The dead man's switch fires on a server that has nothing else.
func TestDeadMansSwitchAlwaysFires(t *testing.T) {
	rules := readRules(t, switchFile)
	require.Len(t, rules, 1)
	require.Zero(t, rules[0].For)
	require.Len(t, evaluator(t, teststorage.New(t), time.Now())(rules[0].Expr), 1)
}

// An Alertmanager repeats a notification no more often than it looks at its group, by default every five minutes.
func TestDeadMansSwitchBeatsEveryMinute(t *testing.T) {
	text, err := os.ReadFile("../../deploy/compose/alertmanager/alertmanager.yml")
	require.NoError(t, err)
	advice, err := os.ReadFile(switchFile)
	require.NoError(t, err)
	_, example, ok := strings.Cut(string(advice), "#\n#   route:\n")
	require.True(t, ok)
	example, _, _ = strings.Cut(example, "\ngroups:")
	for name, text := range map[string]string{
		"alertmanager.yml":     string(text),
		"dead-mans-switch.yml": "route:\n" + strings.ReplaceAll("\n"+example, "\n#   ", "\n"),
	} {
		var c struct {
			Route struct {
				Routes []struct {
					Matchers       []string
					GroupInterval  model.Duration `json:"group_interval"`
					RepeatInterval model.Duration `json:"repeat_interval"`
				}
			}
		}
		require.NoError(t, yaml.Unmarshal([]byte(text), &c), name)
		require.Len(t, c.Route.Routes, 1, name)
		r := c.Route.Routes[0]
		require.Contains(t, r.Matchers[0], "DeucalionDeadMansSwitch", name)
		for _, d := range []model.Duration{r.GroupInterval, r.RepeatInterval} {
			require.Positive(t, d, name)
			require.LessOrEqual(t, time.Duration(d), time.Minute, name)
		}
	}
}
