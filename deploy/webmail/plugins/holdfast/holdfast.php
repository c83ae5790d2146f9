<?php
require_once __DIR__ . '/holdfast_colleagues.php';

/** Two letters: the language of the person's browser, or what brand.ini says. */
function holdfast_language()
{
    return substr(rcmail::get_instance()->get_user_language(), 0, 2);
}

/** The company's look and words, and its address book out of Holdfast's directory. */
class holdfast extends rcube_plugin
{
    private $brand;
    private $is_closed = false;

    public function init()
    {
        $this->brand = parse_ini_file(getenv('HOLDFAST_BRAND'), true);
        $this->add_texts('localization/');
        $this->add_hook('startup', [$this, 'start']);
        $this->add_hook('storage_connect', [$this, 'say_for_whom']);
        $this->add_hook('addressbooks_list', [$this, 'list_books']);
        $this->add_hook('addressbook_get', [$this, 'get_book']);
        $this->add_hook('user_create', [$this, 'new_user']);
        $this->add_hook('loginform_content', [$this, 'ask_for_address']);
        $this->add_hook('login_failed', [$this, 'explain']);
        $this->add_hook('message_send_error', [$this, 'explain_refusal']);
        $this->add_hook('render_page', [$this, 'render']);
    }

    /** When the mailbox is closed, because the usual mail works again, the person is told so and logged out. */
    public function start($page)
    {
        $rcmail = rcmail::get_instance();
        $is_person = !empty($_SESSION['user_id']) && !in_array($page['task'], ['login', 'logout'], true);
        if (!$is_person || $rcmail->storage_connect()) {
            return $page;
        }
        $rcmail->kill_session();
        if ($rcmail->output->ajax_call || !empty($_REQUEST['_framed'])) {
            $rcmail->output->command('redirect', './?_task=login&_closed=1');
            $rcmail->output->send('iframe');
        } else {
            $rcmail->output->redirect(['_task' => 'login', '_closed' => 1]);
        }
        exit;
    }

    /** So that one person's wrong passwords are not everybody's: Holdfast would see only this machine's address. */
    public function say_for_whom($connection)
    {
        $connection['preauth_ident'] = ['x-originating-ip' => rcube_utils::remote_addr()];
        return $connection;
    }

    public function list_books($list)
    {
        $list['sources']['colleagues'] = ['id' => 'colleagues', 'name' => $this->gettext('colleagues'), 'readonly' => true, 'groups' => false, 'autocomplete' => true];
        return $list;
    }

    public function get_book($wanted)
    {
        if ($wanted['id'] === 'colleagues') {
            $wanted['instance'] = new holdfast_colleagues($this->gettext('colleagues'));
        }
        return $wanted;
    }

    /** The identity gets the name that the directory has. */
    public function new_user($user)
    {
        $user['user_email'] = $user['user'];
        foreach ((new holdfast_colleagues(''))->all() as $person) {
            if (strcasecmp($person['email'], $user['user']) === 0) {
                $user['user_name'] = $person['name'];
            }
        }
        return $user;
    }

    /** Nobody has a name of another kind here. */
    public function ask_for_address($form)
    {
        foreach (['user' => 'address', 'password' => 'emergency_password'] as $input => $label) {
            $form['inputs'][$input]['title'] = html::label('rcmlogin' . ($input === 'user' ? 'user' : 'pwd'), rcube::Q($this->gettext($label)));
        }
        return $form;
    }

    /** "Login failed" would have people doubt their password where Holdfast says that it is something else. */
    public function explain($failure)
    {
        $output = rcmail::get_instance()->output;
        $said = (string) rcmail::get_instance()->get_storage()->get_error_str();
        $this->is_closed = strpos($said, 'the emergency mailbox is closed') !== false;
        if ($this->is_closed) {
            $output->show_message($this->sentence('closed'), 'notice');
        }
        if (preg_match('/too many wrong passwords; try again in (\d+) seconds/', $said, $found)) {
            $output->show_message($this->gettext(['name' => 'must_wait', 'vars' => ['minutes' => (int) ceil($found[1] / 60)]]), 'warning');
        }
        return $failure;
    }

    /** Why a message was not taken: Roundcube's own words are for those who run mail servers. */
    public function explain_refusal($failure)
    {
        $vars = $failure['error']['vars'] ?? [];
        $labels = ['there is no such colleague' => 'no_colleague', 'recipients in an hour' => 'enough_for_now', '4.3.1' => 'no_room'];
        foreach ($labels as $words => $label) {
            if (strpos($vars['msg'] ?? '', $words) !== false) {
                $failure['error'] = ['label' => "holdfast.$label", 'vars' => $vars];
            }
        }
        return $failure;
    }

    private function sentence($section)
    {
        $all = $this->brand[$section] ?? [];
        return $all[holdfast_language()] ?? (reset($all) ?: '');
    }

    public function render($page)
    {
        $this->is_closed = $this->is_closed || !empty($_GET['_closed']);
        $color = preg_match('/^#[0-9a-fA-F]{6}$/', $this->brand['color']) ? $this->brand['color'] : '#1f5f8b';
        $no_logo = $this->brand['logo'] === '' ? '#logo,.popover-header img{display:none!important}' : '';
        $file = function ($name) { return "plugins/holdfast/$name?" . filemtime(__DIR__ . "/$name"); };
        $head = '<link rel="stylesheet" href="' . $file('holdfast.css') . '"><style>:root{--holdfast-color:' . $color . '}' . $no_logo . '</style>'
            . '<script src="' . $file('holdfast.js') . '" data-menu="' . rcube::Q(rcmail::get_instance()->gettext('menu')) . '"></script>';
        $page['content'] = str_replace('</head>', $head . '</head>', $page['content']);
        // Who needs larger text can have it on a phone, too.
        $page['content'] = str_replace(', maximum-scale=1.0"', '"', $page['content']);
        if ($page['template'] === 'login') {
            $said = '<div class="holdfast-welcome"><h1>' . rcube::Q($this->sentence('name')) . '</h1><p>' . rcube::Q($this->sentence($this->is_closed ? 'closed' : 'login')) . '</p></div>';
            $page['content'] = preg_replace('/(<form[^>]*id="login-form")/', $said . '$1', $page['content'], 1);
        }
        if ($page['template'] === 'mail') {
            $said = '<div class="holdfast-notice" role="status">' . rcube::Q($this->sentence('mailbox')) . '</div>';
            $page['content'] = preg_replace('/(<div id="layout")/', $said . '$1', $page['content'], 1);
        }
        return $page;
    }
}
