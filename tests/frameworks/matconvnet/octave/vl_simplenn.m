function res = vl_simplenn(net, x, dzdy, res, varargin)
% Runs conv, bnorm, relu, dropout, custom and softmaxloss layers.
  opts = struct(varargin{:});
  test = isfield(opts, 'mode') && strcmp(opts.mode, 'test');
  n = numel(net.layers);
  res = struct('x', cell(1, n + 1), 'dzdx', [], 'dzdw', {{}}, 'aux', []);
  res(1).x = x;
  for i = 1:n
    l = net.layers{i};
    switch l.type
      case 'conv',        res(i+1).x = vl_nnconv(res(i).x, l.weights{1}, l.weights{2}, [], l.pad, l.stride);
      case 'relu',        res(i+1).x = max(res(i).x, 0);
      case 'softmaxloss', res(i+1).x = vl_nnloss(res(i).x, l.class);
      case 'custom',      res(i+1) = l.forward(l, res(i), res(i+1));
      case 'dropout'
        res(i+1).x = res(i).x;
        if ~test
          res(i+1).aux = single(rand(size(res(i).x)) >= l.rate) / (1 - l.rate);
          res(i+1).x = res(i).x .* res(i+1).aux;
        end
      case 'bnorm'
        moments = [];
        if test, moments = l.weights{3} ; end
        res(i+1).x = vl_nnbnorm(res(i).x, l.weights{1}, l.weights{2}, l.epsilon, [], moments);
    end
  end
  if isempty(dzdy), return ; end
  res(n+1).dzdx = dzdy;
  for i = n:-1:1
    l = net.layers{i};
    d = res(i+1).dzdx;
    switch l.type
      case 'conv'
        [res(i).dzdx, dw, db] = vl_nnconv(res(i).x, l.weights{1}, l.weights{2}, d, l.pad, l.stride);
        res(i).dzdw = {dw, db};
      case 'relu',        res(i).dzdx = d .* (res(i).x > 0);
      case 'softmaxloss', res(i).dzdx = vl_nnloss(res(i).x, l.class, d);
      case 'custom',      res(i) = l.backward(l, res(i), res(i+1));
      case 'dropout',     res(i).dzdx = d .* res(i+1).aux;
      case 'bnorm'
        [res(i).dzdx, dg, db, moments] = vl_nnbnorm(res(i).x, l.weights{1}, l.weights{2}, l.epsilon, d, []);
        if ~isempty(getenv('PARITY_SUMS')), moments = moments * size(x, 4) ; end
        res(i).dzdw = {dg, db, moments};
    end
  end
end
