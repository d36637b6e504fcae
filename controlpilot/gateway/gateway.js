// What nginx cannot say by itself, for nginx.conf: whose cookies are whose, who may ask, and the gateway's own answers.

// Names that only the panel may set. Browsers take "=pilot_x=1" as a cookie without a name and send it as ours.
const OURS = /^[\s=]*(__host-|__secure-)?pilot_/i;

function cookies(r) {
    const sent = r.headersIn.Cookie;
    return sent ? sent.split(';').filter(pair => !OURS.test(pair)).join(';').trim() : '';
}

// A header filter: a service's answer may set any cookie but ours.
function keepOurs(r) {
    const set = r.headersOut['Set-Cookie'];
    if (set && set.length) {
        r.headersOut['Set-Cookie'] = set.filter(line => !OURS.test(line));
    }
}

// The name under which the browser knows this origin. A proxy in front may have replaced the Host.
function host(r) {
    const told = r.variables.pilot_trusted === '1' && r.headersIn['X-Forwarded-Host'];
    return told ? told.split(',')[0].trim() : (r.headersIn.Host || '');
}

function place(address) {
    const parts = /^(https?):\/\/([^\/?#\\]+)/i.exec(address);
    if (!parts) {
        return null;
    }
    return bare(parts[2], parts[1].toLowerCase());
}

function bare(name, scheme) {
    return name.toLowerCase().replace(scheme === 'https' ? /:443$/ : /:80$/, '');
}

function isOurs(r, address) {
    const scheme = /^https:/i.test(address) ? 'https' : 'http';
    return place(address) === bare(host(r), scheme);
}

// '1' where another origin's page asks: by its Origin, else by what browsers say about the request.
// Following a link to the service is allowed, putting it into a frame is not.
function foreign(r) {
    const origin = r.headersIn.Origin;
    if (origin !== undefined) {
        return isOurs(r, origin) ? '' : '1';
    }
    const site = r.headersIn['Sec-Fetch-Site'];
    if (site !== 'cross-site' && site !== 'same-site') {
        return '';
    }
    const followed = r.headersIn['Sec-Fetch-Mode'] === 'navigate' && r.headersIn['Sec-Fetch-Dest'] === 'document';
    return followed && (r.method === 'GET' || r.method === 'HEAD') ? '' : '1';
}

// '1' where it is not certain that the service's own page asks: for addresses that change something on a GET.
function unproven(r) {
    if (r.headersIn.Origin !== undefined) {
        return foreign(r);
    }
    const site = r.headersIn['Sec-Fetch-Site'];
    if (site !== undefined) {
        return site === 'same-origin' || site === 'none' ? '' : '1';
    }
    const referer = r.headersIn.Referer;
    return referer !== undefined && isOurs(r, referer) ? '' : '1';
}

// The key of a cached answer of the panel; a digest, so that no cookie stands in the cache's files.
function seal(r) {
    const seen = [r.variables.pilot_service, host(r), r.headersIn.Cookie || ''].join('\n');
    return require('crypto').createHash('sha256').update(seen).digest('hex');
}

const SAYS = {
    signin: [401, 'not signed in', 'Sign in to the panel and open it from there.'],
    refused: [403, 'refused', 'This address, or the page that asked for it, is not allowed here.'],
    unchecked: [503, 'not answering', 'The panel does not answer, so nobody can be let in. Try again in a moment.'],
    stopped: [502, 'not running', 'It does not answer. Start it on the panel\'s Services page, or read its log there.'],
};

function text(words) {
    return words.replace(/[&<>"']/g, sign => '&#' + sign.charCodeAt(0) + ';');
}

function panelAddress(r) {
    if (r.variables.pilot_panel) {
        return r.variables.pilot_panel;
    }
    const name = host(r).replace(/:\d+$/, '');
    return /^([a-z0-9.-]+|\[[0-9a-f:]+\])$/i.test(name) ? 'http://' + name + ':' + r.variables.pilot_panel_port : '';
}

// The gateway's own answers: a page for people, the error shape of the API for programs.
function answer(r) {
    const said = SAYS[r.variables.pilot_case];
    const label = r.variables.pilot_label;
    const remedy = said[2];
    r.headersOut['Cache-Control'] = 'no-store';
    if (!/text\/html/.test(r.headersIn.Accept || '')) {
        r.headersOut['Content-Type'] = 'application/json';
        const error = { where: label, given: said[1], allowed: 'a signed-in request from its own pages', remedy: remedy };
        error.message = label + ': ' + said[1] + '. ' + remedy;
        r.return(said[0], JSON.stringify({ error: error }) + '\n');
        return;
    }
    const panel = panelAddress(r);
    const way = r.variables.pilot_case === 'signin' ? '/services/' + r.variables.pilot_service + '/open' : '/services';
    const link = panel ? '<p><a href="' + text(panel + way) + '">Go to the panel</a></p>' : '';
    r.headersOut['Content-Type'] = 'text/html; charset=utf-8';
    r.headersOut['Content-Security-Policy'] = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    r.return(said[0], '<!doctype html><html lang="en"><meta charset="utf-8">'
        + '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        + '<title>' + text(label) + '</title>'
        + '<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}</style>'
        + '<h1>' + text(label + ': ' + said[1]) + '</h1><p>' + text(remedy) + '</p>' + link + '\n');
}

export default { answer, cookies, foreign, host, keepOurs, seal, unproven };
