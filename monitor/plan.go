// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// plan is a configuration with the rule files as they were when it was loaded: a node that leads later must not evaluate
// what nobody has reloaded. It implements rules.GroupLoader.
type plan struct {
	conf     *config.Config
	external *url.URL
	parser   parser.Parser
	files    []string
	groups   map[string]*rulefmt.RuleGroups // by file
}

// newPlan reads and checks the rule files.
func newPlan(c *config.Config, external *url.URL, p parser.Parser, logger *slog.Logger) (*plan, error) {
	out := &plan{conf: c, external: external, parser: p, groups: map[string]*rulefmt.RuleGroups{}}
	for _, pattern := range c.RuleFiles {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("rule files %q: %w", pattern, err)
		}
		for _, file := range files {
			if out.groups[file] != nil {
				continue
			}
			groups, errs := rulefmt.ParseFile(file, false, c.GlobalConfig.MetricNameValidationScheme, p, logger)
			if len(errs) > 0 {
				return nil, fmt.Errorf("rule file %q: %w", file, errors.Join(errs...))
			}
			out.files = append(out.files, file)
			out.groups[file] = groups
		}
	}
	return out, nil
}

// Load implements rules.GroupLoader.
func (p *plan) Load(file string, _ bool, _ model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	g := p.groups[file]
	if g == nil {
		return nil, []error{fmt.Errorf("rule file %q is not part of the configuration", file)}
	}
	return g, nil
}

// Parse implements rules.GroupLoader.
func (p *plan) Parse(expr string) (parser.Expr, error) { return p.parser.ParseExpr(expr) }

// Load implements rules.GroupLoader with the configuration in force.
func (t *term) Load(file string, ignoreUnknown bool, scheme model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	return t.planNow().Load(file, ignoreUnknown, scheme)
}

// Parse implements rules.GroupLoader.
func (t *term) Parse(expr string) (parser.Expr, error) { return t.planNow().Parse(expr) }
