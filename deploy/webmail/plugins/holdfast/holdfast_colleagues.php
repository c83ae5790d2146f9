<?php
/** The company's address book, as Holdfast's admin HTTP gives it; nobody can change it here. */
class holdfast_colleagues extends rcube_addressbook
{
    public $primary_key = 'ID';
    public $readonly = true;
    public $groups = false;

    private $name;
    private $filter;
    private $result;
    private static $people;

    public function __construct($name)
    {
        $this->ready = true;
        $this->name = $name;
    }

    /** Everybody, by name. When Holdfast cannot be asked, nobody: mail works without. */
    public function all()
    {
        if (self::$people !== null) {
            return self::$people;
        }
        self::$people = [];
        $curl = curl_init(getenv('HOLDFAST_ADDRESS_BOOK'));
        curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 3, CURLOPT_FAILONERROR => true]);
        $list = json_decode((string) curl_exec($curl), true);
        foreach (is_array($list) ? $list : [] as $one) {
            $name = $one['name'] !== '' ? $one['name'] : $one['address'];
            $person = ['ID' => bin2hex($one['address']), 'name' => $name, 'email' => $one['address']];
            if ($one['telephone'] !== '') {
                $person['phone'] = $one['telephone'];
            }
            self::$people[] = $person;
        }
        usort(self::$people, function ($a, $b) { return strcoll(mb_strtolower($a['name']), mb_strtolower($b['name'])); });
        return self::$people;
    }

    private function found()
    {
        if ($this->filter === null) {
            return $this->all();
        }
        return array_values(array_filter($this->all(), $this->filter));
    }

    public function get_name() { return $this->name; }
    public function set_search_set($filter) { $this->filter = $filter; }
    public function get_search_set() { return $this->filter; }
    public function get_result() { return $this->result; }

    public function reset()
    {
        $this->result = null;
        $this->filter = null;
    }

    public function count()
    {
        return new rcube_result_set(count($this->found()), ($this->list_page - 1) * $this->page_size);
    }

    public function list_records($cols = null, $subset = 0, $nocount = false)
    {
        $this->result = $this->count();
        foreach (array_slice($this->found(), $this->result->first, $this->page_size) as $person) {
            $this->result->add($person);
        }
        return $this->result;
    }

    public function search($fields, $value, $mode = 0, $select = true, $nocount = false, $required = [])
    {
        if ($fields === $this->primary_key || $fields === ['ID']) {
            $ids = is_array($value) ? $value : explode(self::SEPARATOR, $value);
            $this->filter = function ($person) use ($ids) { return in_array($person['ID'], $ids, true); };
        } else {
            // Every word must be somewhere: "bob mül" finds Bob Müller.
            $words = preg_split('/\s+/', mb_strtolower(is_array($value) ? implode(' ', $value) : $value), -1, PREG_SPLIT_NO_EMPTY);
            $this->filter = function ($person) use ($words) {
                $text = mb_strtolower($person['name'] . ' ' . $person['email']);
                foreach ($words as $word) {
                    if (mb_strpos($text, $word) === false) {
                        return false;
                    }
                }
                return true;
            };
        }
        return $select ? $this->list_records() : $this->result = $this->count();
    }

    public function get_record($id, $assoc = false)
    {
        $this->result = new rcube_result_set(0);
        foreach ($this->all() as $person) {
            if ($person['ID'] === $id) {
                $this->result = new rcube_result_set(1);
                $this->result->add($person);
                return $assoc ? $person : $this->result;
            }
        }
        return $assoc ? null : $this->result;
    }
}
